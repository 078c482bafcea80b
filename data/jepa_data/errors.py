"""What can be wrong with data, as one line that says what to do."""

from jepa.config import UserError
from jepa_data.printable import printable


class DataError(UserError):
    """The data on disk, or what a config asks of it, cannot be used."""


class DecodeError(DataError):
    """One video, or one member of a sample, cannot be read. The stream replaces the sample and counts it.

    Attributes:
        kind: what is wrong, in a word or two: "empty", "not a video", "truncated", "out of range", "damaged", ...
        detail: the same in a sentence.
        key: the sample; empty where a lone file was opened.
        url: the file or shard it is in; empty for bytes from memory.
    """

    def __init__(self, kind: str, detail: str, key: str = "", url: str = "") -> None:
        self.kind = kind
        self.detail = detail
        self.key = key
        self.url = url
        parts = {f"{printable(url)}:": url, f"sample {key!r}:": key, f"{kind}: {detail}": kind}
        super().__init__(" ".join(part for part, is_known in parts.items() if is_known).strip())

    def named(self, key: str, url: str) -> "DecodeError":
        """The same error, with the sample and the shard it happened in."""
        return DecodeError(self.kind, self.detail, key, url)

    def __reduce__(self) -> tuple[type["DecodeError"], tuple[str, str, str, str]]:
        # Exceptions cross process borders by pickle, which would pass the message as the only argument.
        return DecodeError, (self.kind, self.detail, self.key, self.url)
