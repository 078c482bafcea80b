"""Where a folder of shards lies, and how its bytes are read: a local folder, a web or object store, a shell command.

    FOLDER, file://…               bytes by offset, from files that stay open
    https:// http:// s3:// gs://   bytes by range request (fsspec), or whole shards into a bounded cache
    pipe:COMMAND with {file}       the output of a shell command per file, into the cache; refused unless allowed

Other places than folders: see `remote`.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from jepa_data.config import Access
from jepa_data.errors import DataError, DecodeError

SCHEMES = ("http", "https", "s3", "gs")
OPEN_FILES = 64


class Store(Protocol):
    """A folder of files somewhere. May be used by several threads; a copy in another process opens its own files."""

    url: str
    folder: Path | None  # where it is on this machine, if it is

    def read(self, name: str, start: int, size: int) -> bytes:
        """Bytes of a file, fewer where it ends. Raises DecodeError ("missing")."""
        ...

    def fetch(self, name: str) -> Path:
        """The whole file, on this machine. Raises DecodeError ("missing")."""
        ...

    def current(self, name: str) -> bytes:
        """The whole of a small file as it is now, never as it was fetched before. Raises DecodeError ("missing")."""
        ...

    def expect(self, edition: str, sizes: Mapping[str, int]) -> None:
        """What the manifest says: a name for this state of the corpus, and the bytes that files have in it."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none, or nobody can say before it is fetched."""
        ...

    def close(self) -> None: ...


def open_store(url: str | Path, access: Access | None = None) -> Store:
    """Raises DataError for a scheme that is not read, or a `pipe:` that is not allowed."""
    from jepa_data.shards.remote import FetchingStore, RangeStore, request, run_command

    text, access = str(url), access or Access.model_validate({})
    scheme = text.partition("://")[0] if "://" in text else ""
    if text.startswith("pipe:"):
        if not access.allow_pipe:
            raise DataError(f"{text}: runs a shell command. Allow it with data.remote.allow_pipe=true if you trust it")
        if "{file}" not in text:
            raise DataError(f"{text}: say where the file's name goes: pipe:aws s3 cp s3://bucket/corpus/{{file}} -")
        return FetchingStore(text, run_command, access)
    if scheme in ("", "file"):
        return LocalStore(Path(text.removeprefix("file://")))
    if scheme not in SCHEMES:
        raise DataError(
            f"{text}: no way to read {scheme}://. Give a folder, or {', '.join(s + '://' for s in SCHEMES)}"
        )
    if access.read == "whole":
        return FetchingStore(text.rstrip("/"), request, access)
    return RangeStore(text.rstrip("/"), access)


class LocalStore:
    """A folder of this machine; the last few files read stay open."""

    def __init__(self, folder: Path, open_files: int = OPEN_FILES) -> None:
        self.folder: Path | None = folder
        self.url, self._open_files = str(folder), open_files
        self._files: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, name: str, start: int, size: int) -> bytes:
        try:
            # Under the lock, so that no other thread closes the file in between.
            with self._lock:
                return os.pread(self._open(name), size, start)
        except OSError as error:
            raise DecodeError("missing", f"{name} cannot be read ({error.strerror})", url=self.url) from error

    def fetch(self, name: str) -> Path:
        path = Path(self.url, name)
        if not path.is_file():
            raise DecodeError("missing", f"there is no {name}", url=self.url)
        return path

    def current(self, name: str) -> bytes:
        try:
            return self.fetch(name).read_bytes()
        except OSError as error:
            raise DecodeError("missing", f"{name} cannot be read ({error.strerror})", url=self.url) from error

    def expect(self, edition: str, sizes: Mapping[str, int]) -> None:
        pass  # what is here is looked at, not guessed

    def size(self, name: str) -> int | None:
        path = Path(self.url, name)
        return path.stat().st_size if path.is_file() else None

    def close(self) -> None:
        with self._lock:  # not while another thread reads
            while self._files:
                os.close(self._files.popitem()[1])

    def _open(self, name: str) -> int:
        if name not in self._files:
            self._files[name] = os.open(Path(self.url, name), os.O_RDONLY)
            if len(self._files) > self._open_files:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(name)
        return self._files[name]

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "open_files": self._open_files}  # another process opens its own files

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(Path(state["url"]), state["open_files"])
