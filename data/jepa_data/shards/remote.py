"""Folders of shards on web servers and object stores, or from a shell command.

Cached files are named by a hash of their URL and of the manifest, so that different corpora, and different versions
of a corpus, never share a file.
"""

import hashlib
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jepa_data.config import Access
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.local import LocalStore

OPEN_FETCHED = 4  # of the cache: what is deleted there takes room on the disk until it is closed
ABANDONED = 3600.0  # seconds without a byte, after which a download is that of a process that is gone
Get = Callable[[str, Path, float], None]  # address, file to write, seconds


class FetchingStore:
    """Downloads whole files into a bounded cache, and reads them like local files."""

    def __init__(self, url: str, get: Get, access: Access) -> None:
        self.url = url
        self.access = access
        self._get = get
        self.folder: Path | None = None
        self.cache = cache = Path(access.cache).expanduser() / "shards"
        self._local = LocalStore(cache, OPEN_FETCHED)
        self._edition = ""
        self._sizes: Mapping[str, int] = {}

    def read(self, name: str, start: int, size: int) -> bytes:
        for _ in range(self.access.attempts):
            path = self.fetch(name)
            try:
                return self._local.read(path.name, start, size)
            except DecodeError:
                if path.exists():
                    raise
        # Deleted again and again before it could be opened: other processes need the room for their own files.
        raise DataError(
            f"{address_of(self.url, name)}: the cache {self.cache} is too small for this many workers "
            f"({self.access.cache_gib:g} GiB). Raise data.remote.cache_gib, or lower data.workers"
        )

    def fetch(self, name: str) -> Path:
        address = address_of(self.url, name)
        identity = hashlib.sha256(f"{self._edition} {address}".encode()).hexdigest()
        path = self.cache / f"{identity[:32]}-{Path(name).name}"
        try:
            os.utime(path)
        except FileNotFoundError:
            self._download(name, path)
        except PermissionError:
            pass  # fetched by another user; its time of use is unknown
        return path

    def current(self, name: str) -> bytes:
        path = self.cache / f"now-{Path(name).name}.{os.getpid()}.{threading.get_ident()}.partial"
        self._download(name, path)
        try:
            return path.read_bytes()
        finally:
            path.unlink(missing_ok=True)

    def expect(self, edition: str, sizes: Mapping[str, int]) -> None:
        self._edition = edition
        self._sizes = sizes

    def size(self, name: str) -> int | None:
        return None

    def close(self) -> None:
        self._local.close()

    def _download(self, name: str, path: Path) -> None:
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = f"{self.cache} cannot be made ({error.strerror})"
            raise DataError(f"data.remote.cache: {why}. Name another") from error
        address = address_of(self.url, name)
        # Another process may fetch the same file: each writes its own, and the last to finish names it.
        partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.partial")

        def get() -> None:
            self._get(address, partial, self.access.timeout_seconds)
            size = partial.stat().st_size
            expected = self._sizes.get(name, size)
            if size != expected:
                raise OSError(f"{size} bytes arrived, the manifest says {expected}")

        try:
            _patiently(get, address, self.access)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        self._make_room(path)

    def _make_room(self, new: Path) -> None:
        """Delete the least recently used files. Files open in other processes stay readable until they are closed."""
        now = time.time()
        files = [(path, *_looked_at(path)) for path in self.cache.iterdir() if path != new]
        files = [f for f in files if f[0].suffix != ".partial" or now - f[2] > ABANDONED]
        used = _looked_at(new)[0] + sum(size for _, size, _ in files)
        for path, size, _ in sorted(files, key=lambda file: file[2]):
            if used <= self.access.cache_gib * 2**30 and path.suffix != ".partial":
                return
            path.unlink(missing_ok=True)
            used -= size


class RangeStore(FetchingStore):
    """Downloads small files (manifest, indices), and reads shards by range requests."""

    def __init__(self, url: str, access: Access) -> None:
        super().__init__(url, request, access)

    def read(self, name: str, start: int, size: int) -> bytes:
        if not name.endswith(".tar"):
            return super().read(name, start, size)
        address = address_of(self.url, name)

        def get() -> bytes:
            system, path = _filesystem(address, self.access.timeout_seconds)
            data = system.cat_file(path, start=start, end=start + size)
            there = min(size, self._sizes.get(name, 0) - start)
            if len(data) < there:
                raise OSError(f"{len(data)} of {there} bytes arrived")
            return data

        data = _patiently(get, address, self.access)
        if len(data) > size:
            raise DataError(f"{address}: the server ignores range requests. Set data.remote.read: whole")
        return data


def address_of(url: str, name: str) -> str:
    """Address of a file of a folder."""
    if url.startswith("pipe:"):
        return url.replace("{file}", shlex.quote(name))
    return f"{url}/{name}"


def _patiently(get: Any, address: str, access: Access) -> Any:
    """Retry a request several times. Raises DecodeError("missing")."""
    last: Exception | None = None
    for attempt in range(access.attempts):
        try:
            return get()
        except FileNotFoundError as error:
            raise DecodeError("missing", "there is no such file", url=address) from error
        except ImportError as error:  # fsspec's own: which package this scheme needs
            raise DataError(f"{address}: {error}") from error
        except Exception as error:  # noqa: BLE001  stores raise what they like; the last one is reported
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

        # Without a byte: a large shard may take longer as a whole.
        settings["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(sock_connect=timeout, sock_read=timeout)}
    system, path = fsspec.core.url_to_fs(address, **settings)
    return system, path


def request(address: str, out: Path, timeout: float) -> None:
    system, path = _filesystem(address, timeout)
    system.get_file(path, str(out))


def run_command(address: str, out: Path, timeout: float) -> None:
    with out.open("wb") as file:
        done = subprocess.run(
            address.removeprefix("pipe:"), shell=True, stdout=file, stderr=subprocess.PIPE, timeout=timeout, check=False
        )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-150:]
        raise OSError(f"the command ended with {done.returncode}: {said}")


def _looked_at(path: Path) -> tuple[int, float]:
    """Size of a file and time of its last use; zeros if another process deleted it."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0.0
    return status.st_size, status.st_mtime
