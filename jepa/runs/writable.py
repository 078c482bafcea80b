"""Whether results can be written, before hours are spent on them."""

import os
import tempfile
from pathlib import Path

from jepa.config import UserError


def check_writable(folder: Path) -> None:
    """Raises UserError if no file can be written in `folder`, or the folder cannot be made. Leaves nothing behind."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        where = f"{folder}: nothing can be written" + ("" if there == folder else f" in {there}")
        raise UserError(f"{where} ({error.strerror}); give another folder, or allow writing there") from None


def replace_text(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads it meanwhile finds the old one or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
