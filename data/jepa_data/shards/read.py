"""Read a sample: from bytes in a shard to frames, actions and states of clips."""

import io
import json
import math
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy.lib import format as npy

from jepa_data.decode import Crop, Limits, Size, VideoBackend, VideoIndex
from jepa_data.errors import DecodeError
from jepa_data.printable import printable
from jepa_data.shards.finite import as_float32
from jepa_data.shards.manifest import ACTIONS, EVENTS, IMAGES, METADATA, STATES, Sample
from jepa_data.shards.media import probe_media, still
from jepa_data.shards.store import Store, open_store
from jepa_data.spatial.fitted import fitted
from jepa_data.spatial.kinds import SpatialInfo
from jepa_data.spatial.members import decode, npy_header

MEMBER_BYTES = 2**31  # of one sample
CACHED_SHARE = 16  # a video may take at most this part of the cache
Images = UInt8[np.ndarray, "T h w C"]
ClipKey = tuple[int, int, int]  # source, epoch, place


class ShardFiles:
    """Reads the members of samples by their byte offsets.

    Args:
        folder: a folder of shards, or its store.
    """

    def __init__(self, folder: Store | Path | str) -> None:
        self.store = open_store(folder) if isinstance(folder, Path | str) else folder

    def read(self, sample: Sample) -> dict[str, bytes]:
        """All members of a sample but aligned arrays, by suffix.

        Raises:
            DecodeError: "truncated", "damaged", "missing" or "too large".
        """
        members = self._members(sample.shard, sample.main)
        if sample.crc32 is None or crc32(members) == sample.crc32:
            return members
        self.store.close()  # disks and networks err now and then: a second reading, of files opened again, decides
        members = self._members(sample.shard, sample.main)
        if crc32(members) != sample.crc32:
            raise DecodeError("damaged", "its bytes are not those that were written (CRC-32)")
        return members

    def spatial(self, sample: Sample, infos: Sequence[SpatialInfo]) -> dict[str, bytes]:
        """Files of aligned arrays of a sample, by kind; `members.decode` opens them and checks their CRC-32.

        Raises:
            DecodeError: as `read`.
        """
        if not infos:
            return {}
        if missing := [info.member for info in infos if info.member not in sample.members]:
            raise DecodeError("missing", f"it has no {missing[0]}, and the manifest says that every sample has one")
        members = self._members(sample.shard, {info.member: sample.members[info.member] for info in infos})
        return {info.kind: members[info.member] for info in infos}

    def _members(self, shard: str, places: Mapping[str, tuple[int, int]]) -> dict[str, bytes]:
        """Read in one piece. Raises DecodeError."""
        first = min(offset for offset, _ in places.values())
        size = max(offset + size for offset, size in places.values()) - first
        if first < 0 or min(size for _, size in places.values()) < 0:
            raise DecodeError("damaged", "the index says that it lies before the begin of the shard")
        if size > MEMBER_BYTES:
            raise DecodeError("too large", f"it takes {size} bytes, at most {MEMBER_BYTES} are read")
        data = self.store.read(shard, first, size)
        if len(data) < size:
            raise DecodeError("truncated", "the shard ends inside it. Copy the shard again")
        return {name: data[at - first : at - first + length] for name, (at, length) in places.items()}

    def close(self) -> None:
        self.store.close()


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """The frame indices and the crop of a clip (None: the whole image)."""

    indices: Int64[np.ndarray, " T"]
    crop: Crop | None


Later = Sequence[tuple[ClipKey, ClipSpec]]


@dataclass(frozen=True, slots=True)
class Decoded:
    """The contents of a sample other than its images; `spatial`: files of the aligned arrays asked for, by kind."""

    index: VideoIndex
    actions: Float32[np.ndarray, "P A"] | None
    states: Float32[np.ndarray, "F X"] | None
    labels: dict[str, int]
    spatial: dict[str, bytes] = field(default_factory=dict)
    events: Float32[np.ndarray, "P W"] | None = None

    @property
    def nbytes(self) -> int:
        """Of the files that are kept."""
        return sum(map(len, self.spatial.values()))


@dataclass(eq=False)
class SampleReader:
    """Decodes samples, with a bounded cache of decoded images. Thread-safe in one process.

    The cache has two parts: whole videos, where the first ones are never evicted (evicting the oldest would drop each
    video just before its next use), and clips decoded together with an earlier clip of the same video, until they are
    taken.

    Args:
        size: (h, w) of the frames; None: as stored.
        whole_bytes, waiting_bytes: limits of the two parts; 0: no cache.
        spatial: aligned arrays that are read too.
    """

    store: Store
    backend: VideoBackend
    limits: Limits
    size: Size | None
    whole_bytes: int
    waiting_bytes: int
    spatial: Sequence[SpatialInfo] = ()

    def __post_init__(self) -> None:
        self._files = ShardFiles(self.store)
        self._whole_size = 0
        self._waiting_size = 0
        # By place, not by key: in shards that others wrote two samples may have one key.
        self._whole: dict[tuple[str, int, Crop | None], tuple[np.ndarray, Decoded]] = {}
        self._numbers: dict[tuple[str, int], Decoded] = {}  # of videos that are not decoded
        self._waiting: OrderedDict[ClipKey, tuple[np.ndarray, Decoded]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, clip: ClipKey) -> tuple[Images, Decoded] | None:
        """A clip that was decoded with an earlier clip of its video, if still cached."""
        with self._lock:
            decoded = self._waiting.pop(clip, None)
            if decoded is not None:
                self._waiting_size -= _size(decoded)
        return decoded

    def clips(self, sample: Sample, spec: ClipSpec, later: Later = ()) -> tuple[Images, Decoded]:
        """The frames of a clip, and the other contents of the sample.

        Args:
            later: later clips of the same video: decoded in the same pass, and cached if there is room.

        Raises:
            DecodeError: the sample cannot be read.
        """
        kept = self._whole.get((sample.shard, sample.end, spec.crop))
        if kept is not None:
            return kept[0][spec.indices], kept[1]
        try:
            return self._read(sample, spec, later)
        except DecodeError as error:
            raise error.named(sample.key, f"{self.store.url}/{sample.shard}") from error

    def numbers(self, sample: Sample) -> Decoded:
        """The contents of a sample other than its images, which are not decoded. Raises DecodeError."""
        place = (sample.shard, sample.end)
        if (kept := self._numbers.get(place)) is not None:
            return kept
        try:
            members = self._files.read(sample)
            index = sample.video_index() or probe_media(members[sample.media], sample.media)
            decoded = self._rest(sample, members, index)
        except DecodeError as error:
            raise error.named(sample.key, f"{self.store.url}/{sample.shard}") from error
        with self._lock:
            if place not in self._numbers and self._whole_size + decoded.nbytes <= self.whole_bytes:
                self._numbers[place] = decoded
                self._whole_size += decoded.nbytes
        return decoded

    def _read(self, sample: Sample, spec: ClipSpec, later: Later) -> tuple[Images, Decoded]:
        members = self._files.read(sample)
        data = members[sample.media]
        decoded = self._rest(sample, members, sample.video_index() or probe_media(data, sample.media))
        if sample.media in IMAGES:
            images = still(data, self.size, spec.crop)
            return np.broadcast_to(images, (len(spec.indices), *images.shape[1:])), decoded
        with self.backend.open(data, decoded.index, self.limits) as reader:
            if self._keeps_whole(decoded, spec.crop):
                frames = reader.frames(range(decoded.index.frames), size=self.size, crop=spec.crop)
                with self._lock:
                    before = self._whole.setdefault((sample.shard, sample.end, spec.crop), (frames, decoded))
                    if before[0] is frames:  # else another thread was first
                        self._whole_size += _size(before)
                return frames[spec.indices], decoded
            size = len(spec.indices) * self._frame_bytes(decoded.index, spec.crop) + decoded.nbytes
            if size * len(later) > self.waiting_bytes:
                later = ()
            wanted = [spec, *(other for _, other in later)]
            crops = [spec.crop for spec in wanted]
            first, *others = reader.clips([spec.indices for spec in wanted], size=self.size, crop=crops)
        with self._lock:
            for (clip, _), frames in zip(later, others, strict=True):
                self._waiting[clip] = frames, decoded
                self._waiting_size += _size(self._waiting[clip])
            # The oldest go first: with other worker counts than the plan favors, their clips are taken elsewhere.
            while self._waiting_size > self.waiting_bytes:
                self._waiting_size -= _size(self._waiting.popitem(last=False)[1])
        return first, decoded

    def _rest(self, sample: Sample, members: dict[str, bytes], index: VideoIndex) -> Decoded:
        return Decoded(
            index,
            read_array(members, ACTIONS, index.frames - 1),
            read_array(members, STATES, index.frames),
            sample.labels | read_labels(read_metadata(members)),  # `jepa data index` notes .cls in the index
            self._files.spatial(sample, self.spatial),
            read_array(members, EVENTS, index.frames - 1),
        )

    def _keeps_whole(self, decoded: Decoded, crop: Crop | None) -> bool:
        size = decoded.index.frames * self._frame_bytes(decoded.index, crop) + decoded.nbytes
        return size * CACHED_SHARE <= self.whole_bytes and self._whole_size + size <= self.whole_bytes

    def _frame_bytes(self, index: VideoIndex, crop: Crop | None) -> int:
        height, width = self.size or (crop[2:] if crop else (index.height, index.width))
        return height * width * 3


def read_spatial(files: ShardFiles, sample: Sample, infos: Sequence[SpatialInfo], frames: int) -> dict[str, np.ndarray]:
    """The whole aligned arrays [T, ...] of a sample, by kind. Raises DecodeError, also for numbers that cannot be."""
    arrays = {}
    for info, data in zip(infos, files.spatial(sample, infos).values(), strict=True):
        arrays[info.kind] = decode(data, info, frames)
        if problem := info.problem(arrays[info.kind], frames):
            raise DecodeError("damaged", problem)
    return arrays


def clip_arrays(
    decoded: Decoded, infos: Sequence[SpatialInfo], spec: ClipSpec, size: Size | None
) -> dict[str, np.ndarray]:
    """Aligned arrays of a clip, cropped and scaled as its frames are; depth as float32.

    Args:
        size: height and width of the frames; None: those of the crop, or of the video.

    Raises:
        DecodeError: a file is damaged.
    """
    image = (decoded.index.height, decoded.index.width)
    if size is None:
        size = image if spec.crop is None else spec.crop[2:]
    arrays = {}
    for info in infos:
        rows = decode(decoded.spatial[info.kind], info, decoded.index.frames, spec.indices)
        arrays[info.kind] = fitted(info.kind, rows, image, spec.crop, size)
        if info.kind == "depth":
            arrays[info.kind] = arrays[info.kind].astype(np.float32)
    return arrays


def _size(cached: tuple[np.ndarray, Decoded]) -> int:
    """Bytes that frames and what belongs to them take."""
    return cached[0].nbytes + cached[1].nbytes


def crc32(members: Mapping[str, bytes]) -> int:
    """The checksum of a sample without its aligned arrays, independent of the order of its members."""
    crc = 0
    for name in sorted(members):
        crc = zlib.crc32(members[name], crc)
    return crc


def read_array(members: Mapping[str, bytes], name: str, rows: int) -> Float32[np.ndarray, "rows X"] | None:
    """An array of a sample; None if it does not exist. Raises DecodeError."""
    if name not in members:
        return None
    return read_npy(members[name], rows)


def read_npy(data: bytes, rows: int) -> Float32[np.ndarray, "rows X"]:
    """A two-dimensional array of numbers. Raises DecodeError, also for pickled objects, which are never loaded."""
    try:
        dtype, shape, order, start = _layout(data[: _header_end(data)])
        array = np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape, order=order).copy()
    except Exception as error:  # numpy reads the header with Python's own parser, which raises many things
        raise DecodeError("damaged", f"an array cannot be read: {error}") from error
    if array.dtype.kind not in "fiub" or array.ndim != 2 or len(array) != rows:
        found = f"{array.dtype} of shape {array.shape}"
        raise DecodeError("damaged", f"expected numbers in {rows} rows, found {found}")
    return as_float32(array)


def _header_end(data: bytes) -> int:
    """Bytes before the numbers of a .npy file."""
    major, _ = npy.read_magic(io.BytesIO(data))
    size, width = (10, 2) if major == 1 else (12, 4)
    return size + int.from_bytes(data[size - width : size], "little")


@lru_cache(maxsize=4096)
def _layout(header: bytes) -> tuple[np.dtype, tuple[int, ...], Literal["C", "F"], int]:
    """Type, shape, order and first byte of the numbers, of a header that many samples have alike.

    numpy reads it with Python's own parser, which takes longer than all the rest.
    """
    shape, fortran, dtype = npy_header(io.BytesIO(header))
    if dtype.hasobject or any(side < 0 for side in shape):
        raise ValueError("it holds objects")
    return dtype, shape, "F" if fortran else "C", len(header)


def read_metadata(members: Mapping[str, bytes]) -> dict[str, Any]:
    """The metadata of a sample; empty if it has none. Raises DecodeError ("damaged")."""
    try:
        metadata = json.loads(members.get(METADATA, b"{}"))
    except (ValueError, RecursionError) as error:
        raise DecodeError("damaged", f"its metadata cannot be read: {error}") from error
    if not isinstance(metadata, dict):
        raise DecodeError("damaged", "its metadata is no JSON object")
    return metadata


def read_labels(metadata: Mapping[str, Any]) -> dict[str, int]:
    """`labels` of a sample's metadata: whole numbers of at most 32 bits. Raises DecodeError ("damaged")."""
    labels = metadata.get("labels", {})
    try:
        numbers = {printable(str(name)): int(value) for name, value in labels.items()}
    except (ValueError, AttributeError, TypeError, OverflowError) as error:
        raise DecodeError("damaged", f"its labels cannot be read: {error}") from error
    for name, value in labels.items():
        if (isinstance(value, float) and not value.is_integer()) or abs(int(value)) >= 2**31:
            raise DecodeError("damaged", f"its label {name!r} is {value}, expected a whole number of at most 32 bits")
    return numbers
