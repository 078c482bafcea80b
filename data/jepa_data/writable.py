"""Whether files can be written somewhere, and by nobody else: found out before the work, and said in one line."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from jepa_data.errors import DataError
from jepa_data.printable import printable

LOCK = ".lock"  # in a folder that is being written to


@contextmanager
def writing(path: Path | str, hint: str = "") -> Iterator[None]:
    """Turns an OSError of the writing inside into a DataError that names `path` and the reason."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(f"{printable(str(path))}: cannot be written ({why}){'. ' * bool(hint)}{hint}") from error


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """A folder that no other process writes to meanwhile; made if it is not there, and removed if it stays empty.

    The lock is the operating system's, so it ends with the process, however that ends.

    Raises:
        DataError: another process holds it, or nothing can be written there.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; expected a folder. Give another one")
    with _made(folder), _locked(folder / LOCK, folder, "folder"):
        yield


@contextmanager
def holding_file(path: Path) -> Iterator[None]:
    """A file that no other process writes meanwhile. Raises DataError as `holding`."""
    with _made(path.parent), _locked(path.with_name(path.name + LOCK), path, "file"):
        yield


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder, made if it is not there, and then removed if it stays empty."""
    made = not folder.exists()
    make_folder(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            if made and is_empty(folder):
                folder.rmdir()


@contextmanager
def _locked(lock: Path, path: Path, kind: str) -> Iterator[None]:
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise DataError(
            f"{path}: another process writes to it. Wait until that one ends, or give another {kind}"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()  # one who opened it meanwhile notices that it is gone, and makes another
        held.release()


def is_empty(folder: Path) -> bool:
    """Whether there is nothing in a folder but its lock."""
    return all(path.name == LOCK for path in folder.iterdir())


def check_empty(folder: Path) -> None:
    """Raises DataError if a folder, held by this process, holds anything already."""
    if not is_empty(folder):
        raise DataError(f"{folder}: the folder is not empty; choose another one")


def make_folder(path: Path) -> None:
    """Make a folder, with those above it, and write a file to it for trial. Raises DataError."""
    with writing(path, "Choose another folder"):
        path.mkdir(parents=True, exist_ok=True)
        _try(path)


def check_writable(folder: Path) -> None:
    """Raises DataError if no file can be written in `folder`, or the folder cannot be made. Leaves nothing behind."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        _try(there)
    except OSError as error:
        where = f"{folder}: nothing can be written" + ("" if there == folder else f" in {there}")
        raise DataError(f"{where} ({error.strerror}); give another folder, or allow writing there") from None


def check_file(path: Path, hint: str = "Choose another file") -> None:
    """Raises DataError unless a file of this name can be written. One that is there is not changed."""
    with writing(path, hint):
        if path.exists():
            os.close(os.open(path, os.O_WRONLY))
        else:
            _try(path.parent)


def _try(folder: Path) -> None:
    """Permissions alone do not tell: the disk may be read-only. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder):
        pass
