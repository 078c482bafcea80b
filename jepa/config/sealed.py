"""JSON files that know their own content: a changed bit in them is noticed, wherever it is.

    {"fps": 10.0, …, "content_sha256": "4f1c…"}      of the other keys and values, in whatever way they are written

Who changes such a file on purpose takes the key away; a file without it is read as it is.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from jepa.config.loading import SEAL, Config
from jepa.config.reading import parse_json

CHANGED = f"changed since it was written, by its {SEAL}. Copy it again; if you changed it yourself, remove that key"


def seal(content: Mapping[str, Any], *, allow_nan: bool = True) -> str:
    """The text of a JSON file with this content, and its checksum. Raises ValueError for a NaN that is not allowed."""
    read = json.loads(json.dumps(content, allow_nan=allow_nan))  # as it will be read
    return json.dumps(read | {SEAL: _sha256(read)}, indent=2, ensure_ascii=False) + "\n"


def unsealed(text: str | bytes) -> str | bytes:
    """The text of such a file without its checksum; what is no JSON object stays as it is, for who reads it to refuse.

    Raises ValueError if the content does not fit the checksum.
    """
    try:
        content = parse_json(text)
    except ValueError:
        return text
    return json.dumps(unseal(content)) if isinstance(content, dict) else text


def unseal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of such a file without its checksum. Raises ValueError if they do not fit each other."""
    rest = {key: value for key, value in content.items() if key != SEAL}
    if SEAL in content and content[SEAL] != _sha256(rest):
        raise ValueError(CHANGED)
    return rest


class Sealed(Config):
    """A config that is written to a JSON file of its own, with the checksum of its content."""

    def to_file(self) -> str:
        """The text of its file."""
        return seal(self.model_dump(mode="json"))

    @classmethod
    def from_file(cls, text: str | bytes) -> Self:
        """Raises ValueError if it was changed; ValidationError, which is one too, if it is no JSON or another's."""
        return cls.model_validate_json(unsealed(text))


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
