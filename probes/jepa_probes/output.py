"""Where a verb writes what it found about a model: beside the model, or in the folder of `--out`.

A model that several people share may lie where they cannot write.
"""

import tempfile
from pathlib import Path

from jepa.config import UserError


def output_folder(run: Path, out: Path | None) -> Path:
    """`out`, which is made if it is not there; without one `run`. Asked first, so that no hour of work is lost.

    Raises:
        UserError: nothing can be written there.
    """
    folder = out or run
    if folder != run and (folder / "config.yaml").is_file():
        raise UserError(f"--out is {folder}, which holds a run of its own; give another folder")
    try:
        if out is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        hint = "give a folder to write to with --out FOLDER" if out is None else "give another folder with --out"
        raise UserError(f"{folder}: nothing can be written here ({error.strerror}); {hint}") from None
    return folder


def folders(run: Path, out: Path | None) -> tuple[Path, ...]:
    """Where to look for what other verbs wrote, the first place first."""
    return tuple(dict.fromkeys((out or run, run)))
