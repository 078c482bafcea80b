"""How a file is written that must survive: whole, or the one before is left.

    path.partial   written, flushed to the disk ──rename──→ path ──flush──→ its folder

A kill, a full disk or a power cut at any moment leaves the old file or the new one. The partial file lies in the folder
of the target, so that the rename never copies; one that a killed process left is replaced by the next.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty file to write beside `path`, whose place it takes in one step, unless the writing fails.

    Its mode is that of any new file. A link at `path` is replaced, and what it points to is left alone.

    Raises:
        OSError: the folder cannot be written, or the disk is full; `path` is as it was.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "not a file", str(path))
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)
    mode = _create(partial)
    try:
        yield partial
        if stat.S_IMODE(partial.stat().st_mode) != mode:  # safetensors makes files that nobody else may read
            partial.chmod(mode)
        flush(partial)
        os.replace(partial, path)
        flush(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file in one step. Raises OSError as `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Let a file, or the names in a folder, reach the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(path: Path) -> int:
    """Make a file that was not there, through no link, and return its mode."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
