"""The files of a folder of shards, and their format.

OUT/manifest.json                  the corpus: world, rates, sizes, names, splits -> shards with sizes and SHA-256
OUT/train-000000.tar               KEY.mp4 (or KEY.jpg, ...), KEY.actions.npy, KEY.states.npy, KEY.metadata.json,
                                   and KEY.events.npy, KEY.mask.npz, KEY.depth.npz, KEY.keypoints.npz, KEY.pose.npz
                                   where there are
OUT/train-000000.index.jsonl       a line per sample: offsets of its members, times of its frames, its source
OUT/index.npy                      a row of fixed size per sample (`table.ROW`), to choose clips
"""

import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from jepa.config import Config
from jepa.config.reading import parse_json
from jepa.config.sealed import Sealed
from jepa.config.writing import write_text
from jepa_data.actions import ActionStats
from jepa_data.decode.base import VideoIndex
from jepa_data.errors import DataError
from jepa_data.printable import first_few
from jepa_data.sampling import action_stride
from jepa_data.spatial.kinds import MEMBERS as SPATIAL
from jepa_data.spatial.kinds import SpatialInfo

FORMAT: Literal["openjepa-shards"] = "openjepa-shards"
MANIFEST = "manifest.json"
UNFINISHED = "unfinished.jsonl"  # there while shards are being written; replaced by the manifest
SPLITS = ("train", "val", "test")
VIDEOS = ("mp4", "webm", "mkv", "mov", "avi", "ts")
IMAGES = ("jpg", "jpeg", "png")
MEDIA = (*VIDEOS, *IMAGES)
ACTIONS = "actions.npy"
STATES = "states.npy"
EVENTS = "events.npy"
METADATA = "metadata.json"
# Every kind of member that is read. Anything else in a tar, pickles above all, is refused by name.
MEMBERS = (*MEDIA, ACTIONS, STATES, EVENTS, METADATA, *SPATIAL)
LINE_CRC = ',"line_crc32":'
KEY_LENGTH = 80  # a USTAR name holds 100 characters, the member's ending included
BLOCK = 512  # bytes; tar stores headers and data in blocks


class ShardRecord(Config):
    """One tar: its name, bytes, SHA-256 and number of samples."""

    file: str
    bytes: int
    sha256: str
    samples: int = Field(le=10_000_000)


class SplitRecord(Config):
    """One split, in the order its shards are read."""

    episodes: int
    frames: int
    seconds: float
    shards: tuple[ShardRecord, ...]


class Manifest(Sealed):
    """The contents of `manifest.json`.

    `world` is None for plain video; `fps` and `image_size` (short side, pixels) are None if they vary; `action_size`
    is 0 without actions. `actions`: their range, and mean and standard deviation in the training split; None in shards
    of earlier versions or other tools (then `stream.action_stats` computes them from the samples). `missing_states`:
    number of samples in which a state does not exist. `label_values`: names of the classes of a label; samples contain
    their index. `events`: names of what happens beside the actions; samples contain numbers, a row per action, 0 for
    none and k for `events[k - 1]`. `spatial`: masks, depth, keypoints and poses that belong to the frames of every
    sample. `made`: how the shards were made, as recorded by the command.
    """

    format: Literal["openjepa-shards"] = FORMAT
    version: Literal[2] = 2
    world: str | None
    fps: float | None
    image_size: int | None
    action_size: int
    actions: ActionStats | None = None
    state_names: tuple[str, ...]
    missing_states: dict[str, int] = Field(default_factory=dict)
    label_names: tuple[str, ...]
    label_values: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    events: tuple[str, ...] = ()
    spatial: tuple[SpatialInfo, ...] = ()
    splits: dict[str, SplitRecord]
    seed: int
    made: dict[str, Any] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Shards without aligned arrays or events have the manifest that they always had: its hash names them."""
        values = handler(self)
        for name in ("spatial", "events"):
            if not getattr(self, name):
                values.pop(name, None)
        return values

    @property
    def shards(self) -> list[ShardRecord]:
        """Of all splits, in order."""
        return [shard for split in self.splits.values() for shard in split.shards]

    def missing_note(self) -> str | None:
        """A line on the states that do not exist in some samples; None if all do."""
        if not self.missing_states:
            return None
        counts = [f"{name} in {count} samples" for name, count in Counter(self.missing_states).most_common()]
        return f"states that are missing (NaN) throughout a sample: {first_few(counts, 3)}"

    def action_width(self, fps: float | None, stride: int = 1) -> int:
        """Numbers in an action of a clip of this rate; 0 without actions. Raises DataError if they do not divide."""
        if not self.action_size:
            return 0
        assert self.fps is not None
        return self.action_size * action_stride(self.fps, fps, stride)

    def save(self, folder: Path) -> None:
        """Write the file atomically."""
        write_text(folder / MANIFEST, self.to_file())


@dataclass(frozen=True, slots=True)
class Sample:
    """Location of a sample. `members` maps a suffix to (byte offset, bytes) in the tar.

    `frames` is 0 and `video` None if the index is missing and the video has not been probed yet. `source`: the original
    video, {"url", "start", "end"}, times in seconds; empty if unknown.
    """

    key: str
    split: str
    shard: str
    members: dict[str, tuple[int, int]]
    frames: int
    video: dict[str, Any] | None
    labels: dict[str, int]
    crc32: int | None
    source: dict[str, Any]

    @property
    def media(self) -> str:
        """Ending of its video or image."""
        return next(ending for ending in self.members if ending in MEDIA)

    @property
    def end(self) -> int:
        """First byte of the shard after the sample's data."""
        return max(offset + size for offset, size in self.members.values())

    @property
    def main(self) -> dict[str, tuple[int, int]]:
        """Its members without the aligned arrays, which are read only by those who ask for them."""
        return {name: span for name, span in self.members.items() if name not in SPATIAL}

    def video_index(self) -> VideoIndex | None:
        return None if self.video is None else VideoIndex.from_dict(self.video)


def clean_key(key: str) -> str:
    """The key as it is stored: letters, digits, `_` and `-`; anything else, dots and slashes included, becomes `_`.

    A WebDataset key ends at its first dot, and a key with `../` could name a file elsewhere.
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "_", key)[:KEY_LENGTH] or "_"


def index_name(tar: str) -> str:
    return tar.removesuffix(".tar") + ".index.jsonl"


def checked_members(tar: str, key: str, endings: set[str]) -> None:
    """Raises DataError for a sample with a member of an unknown kind, or without exactly one video or image."""
    strange = sorted(endings - set(MEMBERS))
    if strange:
        raise DataError(
            f"{tar}: sample {key!r} has a member .{strange[0]}. Only {', '.join('.' + m for m in MEMBERS)} are read: "
            "other kinds could run code. Take it out of the tar"
        )
    if (count := len(endings & set(MEDIA))) != 1:
        members = ", ".join(f".{ending}" for ending in sorted(endings))
        raise DataError(f"{tar}: sample {key!r} needs one video or image and has {count}. Its members: {members}")


def index_line(record: Mapping[str, Any]) -> str:
    """A line of an index, which ends with the CRC-32 of what is before it."""
    text = json.dumps(record, separators=(",", ":"))[:-1]
    return f'{text}{LINE_CRC}"{_crc(text.encode())}"}}'


def parse_line(line: bytes | str, tar: str, shard: str, split: str) -> Sample:
    """A sample from its line of an index. Raises ValueError, KeyError or TypeError if it is none, or was changed.

    Lines of earlier versions, and of who edits one and takes its last key away, have no checksum.
    """
    text = line.encode() if isinstance(line, str) else line
    before, mark, _ = text.rpartition(LINE_CRC.encode())
    record = parse_json(text)
    checksum = record.pop("line_crc32", None)
    if mark and checksum != _crc(before):
        raise ValueError("it was changed since it was written, by its line_crc32")
    members = {str(name): (int(offset), int(size)) for name, (offset, size) in record.pop("members").items()}
    key = record.pop("key")
    labels = record.pop("labels")
    crc = record.pop("crc32")
    checked_members(tar, key, set(members))
    source = record.pop("source", {})
    return Sample(clean_key(key), split, shard, members, int(record["frames"]), record, labels, crc, source)


def _crc(text: bytes) -> str:
    """Eight digits, so that lines of alike samples are alike in length."""
    return f"{zlib.crc32(text):08x}"
