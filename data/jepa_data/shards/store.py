"""Access to a folder of shards: local, on a web server or object store, or by a shell command.

    FOLDER, file://…               bytes by offset, from files that stay open
    https:// http:// s3:// gs://   bytes by range request (fsspec), or whole shards into a bounded cache
    pipe:COMMAND with {file}       the output of a shell command per file, into the cache; refused unless allowed

Folders: `local`. Other places: `remote`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from jepa_data.config import Access
from jepa_data.errors import DataError
from jepa_data.shards.local import LocalStore

SCHEMES = ("http://", "https://", "s3://", "gs://")


class Store(Protocol):
    """A folder of files. Thread-safe; a copy in another process opens its own files."""

    url: str
    folder: Path | None  # where it is on this machine, if it is

    def read(self, name: str, start: int, size: int) -> bytes:
        """Bytes of a file; fewer at its end. Raises DecodeError ("missing")."""
        ...

    def fetch(self, name: str) -> Path:
        """Path of the whole file on this machine. Raises DecodeError ("missing")."""
        ...

    def current(self, name: str) -> bytes:
        """The current contents of a small file, without the cache. Raises DecodeError ("missing")."""
        ...

    def expect(self, edition: str, sizes: Mapping[str, int]) -> None:
        """Set the version of the corpus and the sizes of its files, from the manifest."""
        ...

    def size(self, name: str) -> int | None:
        """Size of a file; None if it does not exist, or its size is unknown before the download."""
        ...

    def close(self) -> None: ...


def open_store(url: str | Path, access: Access | None = None) -> Store:
    """Open a store by its URL. Raises DataError for unknown schemes, and for `pipe:` if not allowed."""
    from jepa_data.shards.remote import FetchingStore, RangeStore, request, run_command  # fsspec, only where needed

    text = str(url)
    access = access or Access.model_validate({})
    if text.startswith("pipe:"):
        if not access.allow_pipe:
            raise DataError(f"{text}: runs a shell command. Allow it with data.remote.allow_pipe=true if you trust it")
        if "{file}" not in text:
            raise DataError(f"{text}: say where the file's name goes: pipe:aws s3 cp s3://bucket/corpus/{{file}} -")
        return FetchingStore(text, run_command, access)
    scheme, separator, _ = text.partition("://")
    if not separator or scheme == "file":
        return LocalStore(Path(text.removeprefix("file://")))
    if not text.startswith(SCHEMES):
        raise DataError(f"{text}: no way to read {scheme}://. Give a folder, or {', '.join(SCHEMES)}")
    if access.read == "whole":
        return FetchingStore(text.rstrip("/"), request, access)
    return RangeStore(text.rstrip("/"), access)
