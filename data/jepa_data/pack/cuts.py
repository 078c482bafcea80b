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
    starts: list[float] = []
    for first, last in pairwise(borders):
        parts = max(1, math.ceil((last - first) / (max_seconds or math.inf) - SLACK))
        length = (last - first) / parts
        starts += [first + part * length for part in range(parts)]
    return [Interval(number, *piece) for number, piece in enumerate(pairwise([*starts, end]))]


def batches(pieces: Sequence[Interval], seconds: float) -> list[tuple[Interval, ...]]:
    """Neighboring pieces together, each batch no longer than `seconds` unless it is a single piece."""
    grouped: list[tuple[Interval, ...]] = []
    for piece in pieces:
        if grouped and sum(other.seconds for other in grouped[-1]) + piece.seconds <= seconds:
            grouped[-1] += (piece,)
        else:
            grouped.append((piece,))
    return grouped
