"""The samples of a folder of shards as rows of a memory-mapped table.

A row contains the length of a sample and the offset of its line in the index of its shard. The line is read together
with the sample. Ten million samples are a table of 290 MB, which all workers share.
"""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.manifest import IMAGES, Sample, index_name, parse_line
from jepa_data.shards.store import Store

TABLE = "index.npy"
ROW = np.dtype(
    [
        ("shard", "<u4"),  # number of the shard, counted through all splits
        ("line", "<u8"),  # where the sample's line begins in the index of the shard
        ("size", "<u4"),  # bytes of the line; 0: the sample is kept in memory, `line` is its number there
        ("frames", "<u4"),  # 0: not known
        ("seconds", "<f8"),  # when the last frame is shown, counted from the first
        ("still", "?"),  # an image
    ]
)


# What comes of reading a line of an index that is no line of an index.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def row_of(sample: Sample, shard: int, line: int, size: int) -> tuple[int, int, int, int, float, bool]:
    """The row of a sample, as `np.array([...], ROW)` takes it. `line` and `size` as in `ROW`.

    Raises:
        ValueError, or another of `UNREADABLE`: what its line says of its frames cannot be.
    """
    seconds = 0.0
    if sample.video is not None:
        index = sample.video_index()
        base = sample.video["time_base"]
        assert index is not None
        if index.frames != sample.frames or not index.frames or (np.diff(index.pts) <= 0).any():
            raise ValueError(f"{sample.frames} frames and times of {index.frames}, which must grow")
        if len(base) != 2 or index.time_base <= 0 or not (index.width > 0 and index.height > 0 and index.codec):
            raise ValueError("a unit of time, size or codec that no video has")
        seconds = float(index.seconds[-1])
    return shard, line, size, sample.frames, seconds, sample.media in IMAGES


def rows_of(samples: Sequence[Sample], shard: int, lines: Sequence[bytes]) -> list[tuple]:
    """The rows of the samples of a shard, from the lines of its index, each with its line feed."""
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)]).tolist()
    places = zip(samples, starts, map(len, lines), strict=False)
    return [row_of(sample, shard, start, size) for sample, start, size in places]


if TYPE_CHECKING:
    Base = Sequence[Sample]
else:  # what checks types in tests would read a sample of a `Sequence[Sample]`, and it may be damaged
    Base = Sequence


@dataclass(eq=False, repr=False)
class Samples(Base):
    """Some or all samples of a folder of shards, in the order of writing.

    Args:
        store: that of the shards.
        shards: file and split of each shard.
        rows: of the table; other processes map the file or share the memory, without a copy.
        kept: samples of shards without an index, by shard number.
        mapped: index of the first row, if `rows` is a memory map of the table file.
    """

    store: Store
    shards: Sequence[tuple[str, str]]
    rows: np.ndarray
    kept: dict[int, list[Sample]]
    mapped: int | None
    _shared: Any = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> list[Sample]: ...
    def __getitem__(self, at: int | slice) -> Sample | list[Sample]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        row = self.rows[at].item()
        number, line, size = row[:3]
        shard, split = self.shards[number]
        try:
            if not size:
                return self.kept[number][line]
            text = self.store.read(index_name(shard), line, size)
            sample = parse_line(text, f"{self.store.url}/{shard}", shard, split)
            expected = row_of(sample, number, line, size)
        except UNREADABLE as error:
            if isinstance(error, DataError) and not isinstance(error, DecodeError):
                raise
            raise DecodeError("damaged", f"its line in the index cannot be read ({error})", url=shard) from error
        # What was chosen from the row is cut by the line: both must be of one sample.
        if expected != row:
            raise DecodeError("damaged", f"its line in the index and its row of {TABLE} disagree", url=shard)
        return sample

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def of_split(self, name: str) -> "Samples":
        """The samples of one split, which are contiguous."""
        numbers = [number for number, (_, split) in enumerate(self.shards) if split == name]
        ends = [min(numbers, default=0), max(numbers, default=-1) + 1]
        first, last = np.searchsorted(self.rows["shard"], ends).tolist()
        mapped = None if self.mapped is None else self.mapped + first
        return Samples(self.store, self.shards, self.rows[first:last], self.kept, mapped)

    def replace(self, at: int, sample: Sample) -> None:
        """Store a probed sample of a shard without an index."""
        shard, line, *_ = self.rows[at].item()
        self.kept[shard][line] = sample
        self.rows[at] = row_of(sample, shard, line, 0)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.mapped is not None:
            return state | {"rows": len(self.rows)}
        import torch

        # Moved once into memory that processes share: torch hands over the place, plain pickle the bytes.
        if self._shared is None:
            self._shared = torch.from_numpy(np.ascontiguousarray(self.rows).view(np.uint8)).share_memory_()
            self.rows = self._shared.numpy().view(ROW)
        return state | {"rows": None, "_shared": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.mapped is None:
            self.rows = state["_shared"].numpy().view(ROW)
        else:
            table = open_table(str(self.store.fetch(TABLE)))
            self.rows = table[self.mapped : self.mapped + state["rows"]]


def open_table(path: str) -> np.ndarray:
    """The memory-mapped table of a folder of shards. Raises ValueError if the file is not a table."""
    try:
        rows = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy reads the header with Python's own parser, which raises many things
        raise ValueError(f"{path}: not a table ({error})") from error
    if rows.dtype != ROW or rows.ndim != 1:
        raise ValueError(f"{path}: rows of {rows.dtype}, expected {ROW}")
    return rows
