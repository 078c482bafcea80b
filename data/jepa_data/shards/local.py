"""A folder of shards on this machine: bytes by offset, from files that stay open."""

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepa_data.errors import DecodeError

OPEN_FILES = 64


class LocalStore:
    """A folder of this machine; the last few files read stay open."""

    def __init__(self, folder: Path, open_files: int = OPEN_FILES) -> None:
        self.folder: Path | None = folder
        self.url = str(folder)
        self._open_files = open_files
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

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalStore, (Path(self.url), self._open_files)  # another process opens its own files
