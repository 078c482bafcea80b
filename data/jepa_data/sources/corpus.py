"""What every kind of source gives to the packer: items, each a video or image or a part of one, not yet opened."""

import hashlib
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jepa_data.shards.manifest import IMAGES, KEY_LENGTH, SPLITS, VIDEOS, Sample, clean_key
from jepa_data.spatial.kinds import SpatialInfo

# Files that are taken for videos. Those that --copy cannot store as they are are re-encoded.
VIDEO_FILES = frozenset((*VIDEOS, "m4v", "mts", "m2ts", "mpg", "mpeg", "wmv", "flv", "3gp", "ogv"))
IMAGE_FILES = frozenset(IMAGES)
LABEL_DIGITS = 9  # a longer number is the name of something, and would not fit 32 bits
HASH = 8  # hexadecimal digits at the end of a key, so that names that look alike stay apart
SPLIT_NAMES = {name: name for name in SPLITS} | {"validation": "val", "valid": "val", "dev": "val"}


@dataclass(frozen=True, slots=True)
class Item:
    """A video or image to pack, or a part of one.

    Attributes:
        name: what people know it by: its path within the corpus, with "/".
        key: of its sample; a number is added where it is cut into several.
        group: what is never divided between splits: the source video.
        path: the file; for a `sample` the folder of shards it is in.
        sample: where it lies, if it is in a shard.
        start, end: seconds from the first frame of the file; None is its beginning or end.
        split: where it belongs; None: wherever the hash of its group says.
        labels: a number per label name; -1 where it has none.
        metadata: what else goes into metadata.json: names of labels, caption, columns of a table.
        actions: float32 [F-1, A] for the F frames between start and end; action t takes frame t to t+1.
        states: float32 [F, X].
        spatial: aligned arrays that a `sample` has.
    """

    name: str
    key: str
    group: str
    path: Path
    sample: Sample | None = None
    start: float | None = None
    end: float | None = None
    split: str | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    actions: np.ndarray | None = None
    states: np.ndarray | None = None
    spatial: tuple[SpatialInfo, ...] = ()

    @property
    def ending(self) -> str:
        """Of its video or image, in small letters, without the dot."""
        return self.sample.media if self.sample is not None else self.path.suffix[1:].lower()


@dataclass(frozen=True)
class Corpus:
    """A source, looked through but not opened.

    Attributes:
        kind: "folder", "table", "lerobot" or "shards".
        count: items.
        items: yields them in the order to pack them; takes the seed.
        label_names: of `Item.labels`.
        label_values: names of the classes of a label, where it has names.
        action_size: A; 0 without actions.
        state_names: of the columns of `states`.
        fps: rate of actions and states; None for plain video.
        image_size: short side in pixels, where it is known to be the same for all.
        world: the simulated world it was recorded in.
        spatial: aligned arrays of every sample, of a folder of shards.
        events: names of the events beside the actions, of a folder of shards.
        about: what the manifest says of it, JSON-able: its name, the camera.
        notes: one line for each thing a person should know.
    """

    kind: str
    count: int
    items: Callable[[int], Iterator[Item]]
    label_names: tuple[str, ...] = ()
    label_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    action_size: int = 0
    state_names: tuple[str, ...] = ()
    fps: float | None = None
    image_size: int | None = None
    world: str | None = None
    spatial: tuple[SpatialInfo, ...] = ()
    events: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def timed(self) -> bool:
        """Whether its frames belong to actions or states, so that whole episodes at their own rate are wanted."""
        return bool(self.action_size or self.state_names)


def key_of(name: str, *parts: object) -> str:
    """A key that people recognize and that no other name, or other part of the same file, has."""
    text = "\0".join([name, *map(str, parts)])
    readable = clean_key(name.rpartition(".")[0] or name)
    # Six places are left free for the number of a piece.
    return f"{readable[: KEY_LENGTH - HASH - 7]}-{_hash(text).hex()[:HASH]}"


def mixed(items: Iterable[Item], seed: int) -> list[Item]:
    """Items in an order that has nothing to do with their names, so that every shard holds something of everything."""
    return sorted(items, key=lambda item: (_hash(f"order:{seed}:{item.name}"), item.start or 0.0, item.key))


def split_of(item: Item, seed: int, val_share: float, test_share: float) -> str:
    """Split of an item: its own, or drawn from the hash of its group. Others do not change it."""
    if item.split is not None:
        return item.split
    draw = int.from_bytes(_hash(f"split:{seed}:{item.group}")[:7], "big") / 2**56
    return ("test", "val", "train")[bisect((test_share, test_share + val_share), draw)]


def class_numbers(names: Iterable[str]) -> dict[str, int]:
    """Numbers of classes, in alphabetical order of their names."""
    return {name: number for number, name in enumerate(sorted(set(names)))}


def label_numbers(labels: Iterable[str]) -> tuple[dict[str, int], bool]:
    """The number of each label, and whether they are plain: where all are numbers, they stay the numbers they are."""
    given = set(labels)
    plain = all(label.isascii() and label.isdigit() and len(label) <= LABEL_DIGITS for label in given)
    numbers = {label: int(label) for label in given} if plain else class_numbers(given)
    return numbers, plain


def _hash(text: str) -> bytes:
    # Names may hold bytes that are not UTF-8; other names give the bytes of plain UTF-8.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
