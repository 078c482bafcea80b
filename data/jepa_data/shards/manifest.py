"""What lies in a folder of shards, and how it is described.

OUT/manifest.json                  the whole: world, rates, sizes, names, splits -> shards with sizes and SHA-256
OUT/train-000000.tar               samples: KEY.mp4, KEY.actions.npy, KEY.states.npy, KEY.metadata.json
OUT/train-000000.index.jsonl       a line per sample: where its members lie, and when its frames are shown
"""

import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jepa.config import Config
from jepa_data.decode.base import VideoIndex
from jepa_data.errors import DataError

FORMAT: Literal["openjepa-shards"] = "openjepa-shards"
MANIFEST = "manifest.json"
SPLITS = ("train", "val", "test")
VIDEO, ACTIONS, STATES, METADATA = "mp4", "actions.npy", "states.npy", "metadata.json"
# Every kind of member that is read. Anything else in a tar, pickles above all, is refused by name.
MEMBERS = (VIDEO, ACTIONS, STATES, METADATA)
KEY_LENGTH = 80  # a USTAR name holds 100 characters, the member's ending included
BLOCK = 512  # bytes; tar stores headers and data in blocks


class ShardRecord(Config):
    """One tar: its name, bytes, SHA-256 and number of samples."""

    file: str
    bytes: int
    sha256: str
    samples: int


class SplitRecord(Config):
    """One split, in the order its shards are read."""

    episodes: int
    frames: int
    shards: tuple[ShardRecord, ...]


class Manifest(Config):
    """The contents of `manifest.json`. `world` is None for plain video; `action_size` 0 where there are no actions."""

    format: Literal["openjepa-shards"] = FORMAT
    version: Literal[1] = 1
    world: str | None
    fps: float
    image_size: int
    action_size: int
    state_names: tuple[str, ...]
    label_names: tuple[str, ...]
    splits: dict[str, SplitRecord]
    seed: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Where one sample lies. `members` maps an ending to (byte offset, bytes) in the tar.

    `frames` is 0 and `video` None where the index was lost and the video has not been looked at yet.
    """

    key: str
    split: str
    shard: str
    members: dict[str, tuple[int, int]]
    frames: int
    video: dict[str, Any] | None
    labels: dict[str, int]
    crc32: int | None

    @property
    def end(self) -> int:
        """First byte of the shard after the sample's data."""
        return max(offset + size for offset, size in self.members.values())

    def video_index(self) -> VideoIndex | None:
        return None if self.video is None else VideoIndex.from_dict(self.video)


def clean_key(key: str) -> str:
    """The key as it is stored: letters, digits, `_` and `-`; anything else, dots and slashes included, becomes `_`.

    A WebDataset key ends at its first dot, and a key with `../` could name a file elsewhere.
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "_", key)[:KEY_LENGTH] or "_"


def index_name(tar: str) -> str:
    return tar.removesuffix(".tar") + ".index.jsonl"


def checked_members(tar: Path, key: str, endings: set[str]) -> None:
    """Raises DataError for a sample with a member of an unknown kind, or without a video."""
    strange = sorted(endings - set(MEMBERS))
    if strange:
        raise DataError(
            f"{tar}: sample {key!r} has a member .{strange[0]}. Only {', '.join('.' + m for m in MEMBERS)} are read: "
            "other kinds could run code. Take it out of the tar"
        )
    if VIDEO not in endings:
        raise DataError(f"{tar}: sample {key!r} has no .{VIDEO}. Its members: {', '.join(sorted(endings))}")


def read_index(tar: Path, split: str) -> list[Sample]:
    """Samples of a shard from its index file. Raises OSError, ValueError, KeyError or TypeError if it is no index."""
    samples = []
    for line in (tar.parent / index_name(tar.name)).read_text().splitlines():
        record = json.loads(line)
        members = {str(name): (int(offset), int(size)) for name, (offset, size) in record.pop("members").items()}
        key, labels, crc = record.pop("key"), record.pop("labels"), record.pop("crc32")
        checked_members(tar, key, set(members))
        samples.append(Sample(clean_key(key), split, tar.name, members, int(record["frames"]), record, labels, crc))
    return samples


def scan_tar(tar: Path, split: str) -> list[Sample]:
    """Samples of a shard from its tar headers alone; stops at the first damaged header. No data is read.

    Raises:
        DataError: a member of an unknown kind.
    """
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        # "r:" refuses compression: members of a compressed tar have no byte offset.
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if member.isfile():
                    key, _, ending = member.name.partition(".")
                    found.setdefault(clean_key(key), {})[ending] = (member.offset_data, member.size)
    except tarfile.TarError:
        pass  # samples before the damage are kept; the caller compares their number with the manifest
    for key, members in found.items():
        if VIDEO in members or set(members) - set(MEMBERS):
            checked_members(tar, key, set(members))
    return [Sample(k, split, tar.name, m, 0, None, {}, None) for k, m in found.items() if VIDEO in m]
