"""Where a folder of shards lies, and how its bytes are read: a local folder, a web or object store, a shell command.

    FOLDER, file://…               bytes by offset, from files that stay open
    https:// http:// s3:// gs://   bytes by range request (fsspec), or whole shards into a bounded cache
    pipe:COMMAND with {file}       the output of a shell command per file, into the cache; refused unless allowed

Files in the cache are named by a hash of their whole address, so that equal names of two corpora never meet.
"""

import hashlib
import os
import shlex
import subprocess
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

from jepa_data.config import Access
from jepa_data.errors import DataError, DecodeError

SCHEMES = ("http", "https", "s3", "gs")
OPEN_FILES = 64
ALL = -1


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

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none, or nobody can say before it is fetched."""
        ...

    def close(self) -> None: ...


def open_store(url: str | Path, access: Access | None = None) -> Store:
    """Raises DataError for a scheme that is not read, or a `pipe:` that is not allowed."""
    text, access = str(url), access or Access.model_validate({})
    scheme = text.partition("://")[0] if "://" in text else ""
    if text.startswith("pipe:"):
        if not access.allow_pipe:
            raise DataError(f"{text}: runs a shell command. Allow it with data.remote.allow_pipe=true if you trust it")
        if "{file}" not in text:
            raise DataError(f"{text}: say where the file's name goes: pipe:aws s3 cp s3://bucket/corpus/{{file}} -")
        return FetchingStore(text, _run_command, access)
    if scheme in ("", "file"):
        return LocalStore(Path(text.removeprefix("file://")))
    if scheme not in SCHEMES:
        raise DataError(
            f"{text}: no way to read {scheme}://. Give a folder, or {', '.join(s + '://' for s in SCHEMES)}"
        )
    if access.read == "whole":
        return FetchingStore(text.rstrip("/"), _request, access)
    return RangeStore(text.rstrip("/"), access)


class LocalStore:
    """A folder of this machine; the last few files read stay open."""

    def __init__(self, folder: Path) -> None:
        self.folder: Path | None = folder
        self.url = str(folder)
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

    def size(self, name: str) -> int | None:
        path = Path(self.url, name)
        return path.stat().st_size if path.is_file() else None

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def _open(self, name: str) -> int:
        if name not in self._files:
            self._files[name] = os.open(Path(self.url, name), os.O_RDONLY)
            if len(self._files) > OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(name)
        return self._files[name]

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}  # another process opens its own files

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(Path(state["url"]))


class FetchingStore:
    """Whole files, fetched once into a bounded cache; then read like local ones."""

    def __init__(self, url: str, get: Any, access: Access) -> None:
        self.url, self._get, self.access = url, get, access
        self.folder: Path | None = None
        self.cache = Path(access.cache).expanduser() / "shards"
        self._local: LocalStore | None = None

    def read(self, name: str, start: int, size: int) -> bytes:
        path = self.fetch(name)
        if self._local is None:
            self._local = LocalStore(self.cache)
        return self._local.read(path.name, start, size)

    def fetch(self, name: str) -> Path:
        address = address_of(self.url, name)
        path = self.cache / f"{hashlib.sha256(address.encode()).hexdigest()[:32]}-{Path(name).name}"
        if not path.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            # Another process may fetch the same file: each writes its own, and the last to finish names it.
            partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
            try:
                _patiently(lambda: self._get(address, partial, self.access.timeout_seconds), address, self.access)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
            self._make_room(path)
        os.utime(path)
        return path

    def size(self, name: str) -> int | None:
        return None

    def close(self) -> None:
        if self._local is not None:
            self._local.close()

    def _make_room(self, new: Path) -> None:
        """Delete the files unused for longest. One that is open elsewhere stays readable there until it is closed."""
        files = sorted((p for p in self.cache.iterdir() if p.suffix != ".partial" and p != new), key=_used)
        room = self.access.cache_gib * 2**30 - new.stat().st_size
        sizes = {path: _size(path) for path in files}
        held = sum(sizes.values())
        for path in files:
            if held <= room:
                return
            path.unlink(missing_ok=True)
            held -= sizes[path]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_local": None}


class RangeStore(FetchingStore):
    """Small files (manifest, indices) are fetched; of shards only the bytes asked for are requested."""

    def __init__(self, url: str, access: Access) -> None:
        super().__init__(url, _request, access)

    def read(self, name: str, start: int, size: int) -> bytes:
        if not name.endswith(".tar"):
            return super().read(name, start, size)
        address = address_of(self.url, name)

        def get() -> bytes:
            system, path = _filesystem(address, self.access.timeout_seconds)
            return system.cat_file(path, start=start, end=start + size)

        data = _patiently(get, address, self.access)
        if len(data) > size:
            raise DecodeError(
                "not seekable", "the server ignores range requests. Set data.remote.read: whole", url=address
            )
        return data


def address_of(url: str, name: str) -> str:
    """Address of a file of a folder."""
    return url.replace("{file}", shlex.quote(name)) if url.startswith("pipe:") else f"{url}/{name}"


def _patiently(get: Any, address: str, access: Access) -> Any:
    """Try a request several times. Raises DecodeError("missing")."""
    last: Exception | None = None
    for attempt in range(access.attempts):
        try:
            return get()
        except FileNotFoundError as error:
            raise DecodeError("missing", "there is no such file", url=address) from error
        except ImportError as error:  # fsspec's own: which package this scheme needs
            raise DataError(f"{address}: {error}") from error
        except Exception as error:  # noqa: BLE001  stores raise what they like; the last one is told
            last = error
            if attempt + 1 < access.attempts:
                threading.Event().wait(0.2 * 2**attempt)
    what = " ".join(str(last).split())[:200] or type(last).__name__
    raise DecodeError("missing", f"cannot be fetched ({what}; {access.attempts} attempts)", url=address) from last


def _filesystem(address: str, timeout: float) -> tuple[Any, str]:
    import fsspec

    settings: dict[str, Any] = {}
    if address.startswith("http"):
        import aiohttp

        settings["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=timeout)}
    system, path = fsspec.core.url_to_fs(address, **settings)
    return system, path


def _request(address: str, out: Path, timeout: float) -> None:
    system, path = _filesystem(address, timeout)
    system.get_file(path, str(out))


def _run_command(address: str, out: Path, timeout: float) -> None:
    with out.open("wb") as file:
        done = subprocess.run(
            address.removeprefix("pipe:"), shell=True, stdout=file, stderr=subprocess.PIPE, timeout=timeout, check=False
        )
    if done.returncode:
        raise OSError(
            f"the command ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()[-150:]}"
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # another process made room
        return 0


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
