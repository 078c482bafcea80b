"""Where a video is cut: at changes of scene, and then into pieces of bounded length.

video      |----------------------------------------|
scenes     |--------------|-------------------------|
pieces     |------|-------|--------|--------|-------|     no longer than max_seconds, of equal length within a scene
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SLACK = 1e-6  # seconds


@dataclass(frozen=True, slots=True)
class Interval:
    """A piece of a video: its number among the pieces, and its beginning and end in seconds from the first frame."""

    number: int
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def cut(start: float, end: float, scenes: Sequence[float], max_seconds: float | None) -> list[Interval]:
    """The pieces of the stretch from `start` to `end`. `scenes`: times at which a new scene begins, ascending."""
    borders = [start, *(time for time in scenes if start + SLACK < time < end - SLACK), end]
    pieces = list[Interval]()
    for first, last in pairwise(borders):
        parts = 1 if max_seconds is None else max(1, math.ceil((last - first) / max_seconds - SLACK))
        length = (last - first) / parts
        for part in range(parts):
            stop = last if part == parts - 1 else first + (part + 1) * length
            pieces.append(Interval(len(pieces), first + part * length, stop))
    return pieces


def batches(pieces: Sequence[Interval], seconds: float) -> list[tuple[Interval, ...]]:
    """Neighboring pieces together, each batch no longer than `seconds` unless it is a single piece."""
    grouped, batch, length = list[tuple[Interval, ...]](), list[Interval](), 0.0
    for piece in pieces:
        if batch and length + piece.seconds > seconds:
            grouped.append(tuple(batch))
            batch, length = [], 0.0
        batch.append(piece)
        length += piece.seconds
    return [*grouped, tuple(batch)] if batch else grouped
