"""A folder tree of videos, of images, or of both.

VIDEOS/clip.mp4                     no sub-folders: no labels
VIDEOS/dancing/clip.mp4             the first folder is the label
VIDEOS/train/dancing/clip.mp4       folders that are all named train, val or test are splits
"""

from pathlib import Path, PurePosixPath

from jepa_data.errors import DataError
from jepa_data.printable import printable
from jepa_data.sources.corpus import IMAGE_FILES, SPLIT_NAMES, VIDEO_FILES, Corpus, Item, class_numbers, key_of, mixed
from jepa_data.sources.walk import walk


def read_folder(root: Path, *, labels: bool = True) -> Corpus:
    """The videos and images below `root`. Names that begin with a dot are left out.

    Args:
        labels: whether folder names are labels.

    Raises:
        DataError: there are none.
    """
    listing = walk(root, VIDEO_FILES | IMAGE_FILES)
    names = [PurePosixPath(path.relative_to(root).as_posix()) for path in listing.files]
    if not names:
        known = " ".join(sorted(VIDEO_FILES | IMAGE_FILES))
        notes = "".join(f"; {note}" for note in listing.notes)
        raise DataError(f"{root}: holds no video or image. Their names end in one of: {known}{notes}")
    splits = all(len(name.parts) > 1 and name.parts[0].lower() in SPLIT_NAMES for name in names)
    depth = int(splits)  # of the folder that is the label
    named = {name: printable(name.parts[depth]) for name in names if labels and len(name.parts) > depth + 1}
    numbers = class_numbers(named.values())
    items = [_item(root, name, splits, named.get(name), numbers) for name in names]
    return Corpus(
        kind="folder",
        count=len(items),
        items=lambda seed: iter(mixed(items, seed)),
        label_names=("label",) if numbers else (),
        label_values={"label": tuple(numbers)} if numbers else {},
        about={"name": printable(root.resolve().name), "labels": labels},
        notes=listing.notes,
    )


def _item(root: Path, name: PurePosixPath, splits: bool, label: str | None, numbers: dict[str, int]) -> Item:
    return Item(
        name=printable(name),
        key=key_of(str(name)),
        group=printable(name),
        path=root / name,
        split=SPLIT_NAMES[name.parts[0].lower()] if splits else None,
        labels={"label": numbers.get(label or "", -1)} if numbers else {},
        metadata={} if label is None else {"label": label},
    )
