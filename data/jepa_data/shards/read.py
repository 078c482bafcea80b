"""One sample, from its bytes in a shard to the frames, actions and states of a clip."""

import io
import json
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from jepa_data.decode import Size, VideoBackend, VideoIndex
from jepa_data.errors import DecodeError
from jepa_data.shards.manifest import ACTIONS, METADATA, STATES, Sample
from jepa_data.shards.store import Store, open_store

MEMBER_BYTES = 2**31  # of one sample
CACHED_SHARE = 16  # a video may take at most this part of the cache


class ShardFiles:
    """Reads the members of samples by their byte offsets.

    Args:
        folder: a folder of shards, or where it lies.
    """

    def __init__(self, folder: Store | Path | str) -> None:
        self.store = open_store(folder) if isinstance(folder, Path | str) else folder

    def read(self, sample: Sample) -> dict[str, bytes]:
        """All members of a sample, by ending. Raises DecodeError ("truncated", "damaged", "missing", "too large")."""
        first = min(offset for offset, _ in sample.members.values())
        if sample.end - first > MEMBER_BYTES:
            raise DecodeError(
                "too large", f"its members take {sample.end - first} bytes, at most {MEMBER_BYTES} are read"
            )
        data = self.store.read(sample.shard, first, sample.end - first)
        if len(data) < sample.end - first:
            raise DecodeError("truncated", "the shard ends inside it. Copy the shard again")
        members = {name: data[at - first : at - first + size] for name, (at, size) in sample.members.items()}
        if sample.crc32 is not None:
            crc = 0
            for name in sorted(members):
                crc = zlib.crc32(members[name], crc)
            if crc != sample.crc32:
                raise DecodeError("damaged", "its bytes are not those that were written (CRC-32)")
        return members

    def close(self) -> None:
        self.store.close()


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a sample holds besides its video; a whole video where it was worth keeping."""

    index: VideoIndex
    video: UInt8[np.ndarray, "F h w C"] | None
    actions: Float32[np.ndarray, "P A"] | None
    states: Float32[np.ndarray, "F X"] | None
    labels: dict[str, int]

    @property
    def nbytes(self) -> int:
        arrays = (self.video, self.actions, self.states)
        return sum(array.nbytes for array in arrays if array is not None)


class SampleReader:
    """Samples to frames, with a bounded memory of decoded videos. One process, one thread.

    Args:
        size: (h, w) of the frames; None as stored.
        cache_bytes: decoded videos to keep; 0 keeps none.
        reuse: videos gone through before one comes again within an epoch; None if each comes once. Where it is None
            the first videos seen are kept for good: dropping the oldest would drop each just before it is wanted again.
    """

    def __init__(
        self, store: Store, backend: VideoBackend, size: Size | None, cache_bytes: int, reuse: int | None
    ) -> None:
        self._files, self._backend, self._size = ShardFiles(store), backend, size
        self._capacity, self._reuse, self._held = cache_bytes, reuse, 0
        self._cache: OrderedDict[str, Decoded] = OrderedDict()

    def clip(self, sample: Sample, indices: Int64[np.ndarray, " T"]) -> tuple[UInt8[np.ndarray, "T h w C"], Decoded]:
        """Frames of a sample, and what else it holds. Raises DecodeError, named."""
        kept = self._cache.get(sample.key)
        if kept is not None and kept.video is not None:
            self._cache.move_to_end(sample.key)
            return kept.video[indices], kept
        try:
            return self._read(sample, indices)
        except DecodeError as error:
            raise error.named(sample.key, f"{self._files.store.url}/{sample.shard}") from error

    def _read(self, sample: Sample, indices: Int64[np.ndarray, " T"]) -> tuple[UInt8[np.ndarray, "T h w C"], Decoded]:
        members = self._files.read(sample)
        with self._backend.open(members[sample.media], sample.video_index()) as reader:
            index = reader.index
            keep = self._worth_keeping(index)
            frames = reader.frames(range(index.frames) if keep else indices, size=self._size)
        decoded = Decoded(
            index,
            frames if keep else None,
            read_npy(members[ACTIONS], index.frames - 1) if ACTIONS in members else None,
            read_npy(members[STATES], index.frames) if STATES in members else None,
            read_labels(members.get(METADATA, b"{}")),
        )
        if keep:
            self._keep(sample.key, decoded)
            frames = frames[indices]
        return frames, decoded

    def _worth_keeping(self, index: VideoIndex) -> bool:
        height, width = self._size or (index.height, index.width)
        size = index.frames * height * width * 3
        if size * CACHED_SHARE > self._capacity:
            return False
        if self._reuse is None:
            return self._held + size <= self._capacity
        return self._reuse * size <= self._capacity

    def _keep(self, key: str, decoded: Decoded) -> None:
        self._cache[key] = decoded
        self._held += decoded.nbytes
        while self._held > self._capacity and len(self._cache) > 1:
            self._held -= self._cache.popitem(last=False)[1].nbytes


def read_npy(data: bytes, rows: int) -> Float32[np.ndarray, "rows X"]:
    """A two-dimensional array of numbers. Pickled objects are refused, not loaded. Raises DecodeError."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DecodeError("damaged", f"an array cannot be read: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub" or array.ndim != 2 or len(array) != rows:
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise DecodeError("damaged", f"expected numbers in {rows} rows, found {found}")
    return array.astype(np.float32, copy=False)


def read_labels(data: bytes) -> dict[str, int]:
    """`labels` of a sample's metadata. Raises DecodeError."""
    try:
        labels = json.loads(data).get("labels", {})
        return {str(name): int(value) for name, value in labels.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DecodeError("damaged", f"its metadata cannot be read: {error}") from error
