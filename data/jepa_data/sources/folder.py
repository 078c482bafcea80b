"""A folder tree of videos, of pictures, or of both.

VIDEOS/clip.mp4                     no sub-folders: no labels
VIDEOS/dancing/clip.mp4             the first folder is the label
VIDEOS/train/dancing/clip.mp4       folders that are all named train, val or test are splits
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from jepa_data.errors import DataError
from jepa_data.sources.corpus import IMAGE_FILES, SPLIT_NAMES, VIDEO_FILES, Corpus, Item, class_numbers, key_of, mixed


def read_folder(root: Path, *, labels: bool = True) -> Corpus:
    """The videos and pictures below `root`. Names that begin with a dot are left out.

    Args:
        labels: whether folder names are labels.

    Raises:
        DataError: there are none.
    """
    found, others = list[PurePosixPath](), Counter[str]()
    for path in _files(root):
        name = PurePosixPath(path.relative_to(root).as_posix())
        if path.suffix[1:].lower() in VIDEO_FILES | IMAGE_FILES:
            found.append(name)
        else:
            others[path.suffix or "without an ending"] += 1
    if not found:
        known = " ".join(sorted(VIDEO_FILES | IMAGE_FILES))
        raise DataError(f"{root}: holds no video or picture. Their names end in one of: {known}")
    splits = all(len(name.parts) > 1 and name.parts[0].lower() in SPLIT_NAMES for name in found)
    classes = {name: _class(name, splits) for name in found} if labels else {}
    numbers = class_numbers(label for label in classes.values() if label is not None)
    items = [_item(root, name, splits, classes.get(name), numbers) for name in found]
    kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
    return Corpus(
        kind="folder",
        count=len(items),
        items=lambda seed: iter(mixed(items, seed)),
        label_names=("label",) if numbers else (),
        label_values={"label": tuple(numbers)} if numbers else {},
        about={"name": root.resolve().name, "labels": labels},
        notes=(f"{others.total()} other files were left out: {kinds}",) if others else (),
    )


def _item(root: Path, name: PurePosixPath, splits: bool, label: str | None, numbers: dict[str, int]) -> Item:
    return Item(
        name=str(name),
        key=key_of(str(name)),
        group=str(name),
        path=root / name,
        split=SPLIT_NAMES[name.parts[0].lower()] if splits else None,
        labels={"label": numbers.get(label or "", -1)} if numbers else {},
        metadata={} if label is None else {"label": label},
    )


def _class(name: PurePosixPath, splits: bool) -> str | None:
    folders = name.parts[int(splits) : -1]
    return folders[0] if folders else None


def _files(root: Path) -> Iterator[Path]:
    """All files below a folder, sorted. Links to folders are followed, each folder once."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))
