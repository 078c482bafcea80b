"""Whether files can be written somewhere: found out before the work, and said in one line."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jepa_data.errors import DataError
from jepa_data.printable import printable


@contextmanager
def writing(path: Path | str, hint: str = "") -> Iterator[None]:
    """Turns an OSError of the writing inside into a DataError that names `path` and the reason."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(f"{printable(str(path))}: cannot be written ({why}){'. ' * bool(hint)}{hint}") from error


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
