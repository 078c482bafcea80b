"""The tars of a folder that other people wrote, and the split of each: what its name begins with."""

import re
from pathlib import Path

from jepa_data.errors import DataError
from jepa_data.printable import first_few, printable
from jepa_data.shards.manifest import MANIFEST, SPLITS, UNFINISHED
from jepa_data.sources.walk import walk

SHOWN = 5  # names in a note
SPLIT_NAMES = {"training": "train", "valid": "val", "validation": "val", "dev": "val"} | {name: name for name in SPLITS}


def find_tars(folder: Path, split: str | None, overwrite: bool, notes: list[str]) -> tuple[list[Path], dict[str, str]]:
    """The tars in the order of splits and names, and the split of each. Names those left out. Raises DataError."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if split is not None and split not in SPLITS:
        raise DataError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    if (folder / UNFINISHED).exists():
        raise DataError(f"{folder}: the writing of these shards was not finished. Give the same command again")
    if (folder / MANIFEST).exists() and not overwrite:
        raise DataError(f"{folder}: has a {MANIFEST} already. Look: jepa data inspect {folder}; or add --overwrite")
    tars = _tar_files(folder, notes)
    if not tars:
        packed = sorted(folder.glob("*.tar.*")) + sorted(folder.glob("*.tgz"))
        what = "no tars"
        if packed:
            what = f"{packed[0].name} is compressed, and members of it have no place. Decompress it"
        raise DataError("; ".join([f"{folder}: {what}", *notes]))
    splits = {tar.name: split or named_split(tar) or "train" for tar in tars}
    return sorted(tars, key=lambda tar: (SPLITS.index(splits[tar.name]), tar.name)), splits


def _tar_files(folder: Path, notes: list[str]) -> list[Path]:
    """The tars that lie in the folder itself. Those below, and names that no manifest can hold, are left out."""
    listing = walk(folder, ("tar",))
    notes += [note for note in listing.notes if "other files" not in note]
    here = [tar for tar in listing.files if tar.parent == folder]
    tars = [tar for tar in here if printable(tar.name) == tar.name]
    left_out = {
        "in folders below were left out. Index each folder by itself": set(listing.files) - set(here),
        "whose names are not UTF-8 were left out. Rename them": set(here) - set(tars),
    }
    for why, files in left_out.items():
        if files:
            names = sorted(printable(tar.relative_to(folder)) for tar in files)
            notes.append(f"{len(names)} tar(s) {why}: {first_few(names, SHOWN)}")
    return tars


def named_split(tar: Path) -> str | None:
    return SPLIT_NAMES.get(re.split(r"[^a-z]", tar.name.lower(), maxsplit=1)[0])
