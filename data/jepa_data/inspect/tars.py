"""The tars of a folder that other people wrote, and the split of each: what its name begins with."""

import re
from pathlib import Path

from jepa_data.errors import DataError
from jepa_data.printable import printable
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
        what = (
            f"{packed[0].name} is compressed, and members of it have no place. Decompress it" if packed else "no tars"
        )
        raise DataError("; ".join([f"{folder}: {what}", *notes]))
    splits = {tar.name: split or named_split(tar) or "train" for tar in tars}
    return sorted(tars, key=lambda tar: (SPLITS.index(splits[tar.name]), tar.name)), splits


def _tar_files(folder: Path, notes: list[str]) -> list[Path]:
    """The tars that lie in the folder itself. Those below, and names that no manifest can hold, are left out."""
    listing = walk(folder, ("tar",))
    notes += [note for note in listing.notes if "other files" not in note]
    tars, below, odd = list[Path](), list[str](), list[str]()
    for tar in listing.files:
        name = printable(tar.relative_to(folder))
        if tar.parent != folder:
            below.append(name)
        elif name != tar.name:
            odd.append(name)
        else:
            tars.append(tar)
    for names, why in (
        (below, "in folders below were left out. Index each folder by itself"),
        (odd, "whose names are not UTF-8 were left out. Rename them"),
    ):
        if names:
            notes.append(f"{len(names)} tar(s) {why}: {', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''}")
    return tars


def named_split(tar: Path) -> str | None:
    word = re.match(r"[a-z]*", tar.name.lower())
    return SPLIT_NAMES.get(word.group()) if word else None
