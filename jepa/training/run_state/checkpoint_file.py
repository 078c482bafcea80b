"""One checkpoint as a file: torch's zip archive, whose comment is the SHA-256 of the rest of the file.

    torch.save(…) ······························ 2 bytes   71 bytes
    |──────────────── hashed ─────────────────| length  | sha256:0123…

So one file holds both, any program that reads zip archives shows the sum (`unzip -z`), and torch reads it as any other.
"""

import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from jepa.config import UserError, first_line
from jepa.config.writing import replacing

PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step")
SEAL = b"sha256:"
LENGTH = 2  # bytes of a zip archive's last field, which counts those of the comment
SEALED = LENGTH + len(SEAL) + 64
END = b"PK\x05\x06"  # of an archive without a comment, 22 bytes before its end
DAMAGED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    NotImplementedError,
)


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Raises UserError if the file cannot be written; one that was there is left as it was."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("r+b") as file:
            torch.save(checkpoint, file)
            _seal(file)
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a full disk
        raise not_written(path, error) from error


def not_written(path: Path, error: Exception) -> UserError:
    """What a user reads of a checkpoint that could not be written."""
    reason = getattr(error, "strerror", None) or first_line(error)
    return UserError(
        f"{path}: the checkpoint could not be written ({reason}); an earlier one was left as it is. Free some "
        "space or allow writing here, then go on with --resume"
    )


def read_checkpoint(
    path: Path, *, mmap: bool = False, parts: tuple[str, ...] = PARTS, verb: str = "jepa pretrain"
) -> dict[str, Any]:
    """The contents of a checkpoint.

    Args:
        mmap: leave its tensors on disk until they are used.
        parts: what it must hold; that of `verb`.

    Raises:
        UserError: the file is empty, cut off, changed by as much as a bit, or no checkpoint of a training.
    """
    try:
        _check_bytes(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        missing = [part for part in parts if part not in checkpoint]
    except DAMAGED as error:
        raise UserError(f"{path}: damaged, or no checkpoint of `{verb}` ({first_line(error)})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if missing:
        raise UserError(f"{path}: no checkpoint of `{verb}`: it holds no {missing[0]}")
    return checkpoint


def _seal(file: BinaryIO) -> None:
    """Append the sum of an archive to it."""
    size = file.seek(-LENGTH, 2)
    if file.read() != b"\0\0":
        raise RuntimeError("torch wrote an archive that has a comment")
    digest = _digest(file, size)
    file.seek(size)
    comment = SEAL + digest.encode()
    file.write(len(comment).to_bytes(LENGTH, "little") + comment)


def _digest(file: BinaryIO, size: int) -> str:
    """Of the first `size` bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while size and (data := file.read(min(size, 2**22))):
        digest.update(data)
        size -= len(data)
    return digest.hexdigest()


def _check_bytes(path: Path) -> None:
    """Raises BadZipFile, with a clearer reason than torch gives."""
    size = path.stat().st_size
    if not size:
        raise zipfile.BadZipFile("the file is empty")
    with path.open("rb") as file:
        file.seek(max(0, size - SEALED))
        tail = file.read()
        if len(tail) == SEALED and tail.startswith((SEALED - LENGTH).to_bytes(LENGTH, "little") + SEAL):
            if tail[LENGTH + len(SEAL) :].decode("ascii", "replace") != _digest(file, size - SEALED):
                raise zipfile.BadZipFile("its SHA-256 differs from the one that was written with it")
            return
    if tail[-22:-18] != END or tail[-LENGTH:] != b"\0\0":
        raise zipfile.BadZipFile("its end is missing, or it is another kind of file")
    with zipfile.ZipFile(path) as archive:  # of a version that wrote no sum
        if (part := archive.testzip()) is not None:  # torch does not compare them
            raise zipfile.BadZipFile(f"the checksum of its part {part} differs")
