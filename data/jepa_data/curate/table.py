"""The measurements of a corpus in columns, and what a stage decides about them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from jepa_data.curate.frame_stats import HASHED
from jepa_data.curate.measure import Measured, Problem

Rows = Int64[np.ndarray, " _"]  # numbers of samples that are still there, ascending


@dataclass(frozen=True)
class Table:
    """One row per sample, in the order of the shards; see `Measured`.

    Attributes:
        problems: why samples cannot be read, by row.
        not_resampled: why samples cannot be resampled, by row.
        labels: a column per label of the corpus.
    """

    keys: tuple[str, ...]
    splits: tuple[str, ...]
    still: Bool[np.ndarray, " N"]
    frames: Int64[np.ndarray, " N"]
    seconds: Float64[np.ndarray, " N"]
    rate: Float64[np.ndarray, " N"]
    motion: Float64[np.ndarray, " N"]
    brightness: Float64[np.ndarray, " N"]
    sharpness: Float64[np.ndarray, " N"]
    hashes: UInt64[np.ndarray, "N 4"]
    widths: Int64[np.ndarray, "N 2"]
    labels: Mapping[str, Int64[np.ndarray, " N"]]
    problems: Mapping[int, Problem]
    not_resampled: Mapping[int, Problem]

    @classmethod
    def of(
        cls,
        keys: Iterable[str],
        splits: Iterable[str],
        measured: Iterable[Measured],
        label_names: Iterable[str],
    ) -> Self:
        """Measurements in the order of the keys."""
        rows = list(measured)
        labels = {name: np.array([row.labels.get(name, -1) for row in rows], np.int64) for name in label_names}

        def column(name: str, kind: type = np.float64) -> np.ndarray:
            return np.array([getattr(row, name) for row in rows], kind)

        return cls(
            keys=tuple(keys),
            splits=tuple(splits),
            still=column("still", np.bool_),
            frames=column("frames", np.int64),
            seconds=column("seconds"),
            rate=column("rate"),
            motion=column("motion"),
            brightness=column("brightness"),
            sharpness=column("sharpness"),
            hashes=column("hashes", np.uint64).reshape(-1, HASHED),
            widths=column("widths", np.int64).reshape(-1, 2),
            labels=labels,
            problems={i: row.problem for i, row in enumerate(rows) if row.problem is not None},
            not_resampled={i: row.not_resampled for i, row in enumerate(rows) if row.not_resampled is not None},
        )

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Drop:
    """One sample that a stage drops.

    Attributes:
        reason: in words, with the measured value and the threshold.
        value, threshold: what was measured and what it was compared with, where they are numbers.
        like: the row of the sample it is a duplicate of.
    """

    row: int
    reason: str
    value: float | None = None
    threshold: float | None = None
    like: int | None = None


@dataclass(frozen=True)
class Decision:
    """What a stage decides. It drops some of the rows it saw.

    Attributes:
        rule: what goes, in words.
        values: what was measured of some rows that stay, those nearest to the threshold first; for examples.
        notes: what a person should know, a line each.
    """

    drops: tuple[Drop, ...]
    rule: str
    values: Mapping[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def they_stay(count: int, why: str) -> tuple[str, ...]:
    """The note on samples that a stage knows too little of to drop them, if there are any."""
    if not count:
        return ()
    return (f"{count} samples {why}; they stay",)
