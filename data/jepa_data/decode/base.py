"""What every decoder offers: an index of a video, and a reader that returns exactly the frames asked for.

Shapes: T frames · h w pixels · C = 3 (RGB). Frames are numbered in the order they are shown, from 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from jepa_data.errors import DecodeError

Source = bytes | Path | str
Size = tuple[int, int]  # height, width
Crop = tuple[int, int, int, int]  # top, left, height, width, in pixels of the picture as it is shown


@dataclass(frozen=True)
class VideoIndex:
    """Where the frames of a video are, in time and in the stream. Cheap to store: it goes into a shard's index.

    Attributes:
        pts: presentation time of each frame in ticks, ascending.
        time_base: seconds per tick.
        keyframes: numbers of the frames a decoder can start from.
        width, height: pixels of the picture as it is shown, that is after `rotation`.
        rotation: degrees counter-clockwise (0, 90, 180, 270) by which the stored picture is turned to be shown.
        codec: FFmpeg's name of it.
        fps: average rate.
    """

    pts: Int64[np.ndarray, " F"]
    time_base: Fraction
    keyframes: Int64[np.ndarray, " G"]
    width: int
    height: int
    rotation: int
    codec: str
    fps: float

    @property
    def frames(self) -> int:
        return len(self.pts)

    @property
    def seconds(self) -> Float64[np.ndarray, " F"]:
        """When each frame is shown, counted from the first."""
        return (self.pts - self.pts[0]) * float(self.time_base)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able. Times and keyframes are stored as runs `[first, step, count]`: one run for a steady video."""
        return {
            "frames": self.frames,
            "fps": self.fps,
            "pts": to_runs(self.pts),
            "time_base": [self.time_base.numerator, self.time_base.denominator],
            "keyframes": to_runs(self.keyframes),
            "width": self.width,
            "height": self.height,
            "rotation": self.rotation,
            "codec": self.codec,
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        return cls(
            pts=from_runs(record["pts"]),
            time_base=Fraction(*record["time_base"]),
            keyframes=from_runs(record["keyframes"]),
            width=record["width"],
            height=record["height"],
            rotation=record["rotation"],
            codec=record["codec"],
            fps=float(record["fps"]),
        )


class Reader(Protocol):
    """One open video. Belongs to one thread; close it, or use it as a context manager."""

    @property
    def index(self) -> VideoIndex: ...

    def frames(
        self, indices: Sequence[int] | Int64[np.ndarray, " T"], *, size: Size | None = None, crop: Crop | None = None
    ) -> UInt8[np.ndarray, "T h w C"]:
        """Exactly these frames, in the order asked for (repeats allowed), cropped, then scaled to `size`.

        Raises:
            DecodeError: a frame does not exist or cannot be decoded. Another frame is never returned in its place.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class VideoBackend(Protocol):
    """A decoder library."""

    name: str

    def probe(self, src: Source) -> VideoIndex:
        """Index of a video: reads its packets, decodes one frame. Raises DecodeError."""
        ...

    def open(self, src: Source, index: VideoIndex | None = None) -> Reader:
        """A reader; `index`, where it was stored at packing time, saves the pass over the packets."""
        ...


def checked_indices(indices: Sequence[int] | Int64[np.ndarray, " T"], frames: int) -> list[int]:
    """The indices as ints. Raises DecodeError ("out of range") unless all are in [0, frames)."""
    numbers = [int(i) for i in indices]
    wrong = [i for i in numbers if not 0 <= i < frames]
    if wrong:
        raise DecodeError("out of range", f"frame {wrong[0]} was asked for, the video has {frames} (0..{frames - 1})")
    return numbers


def to_runs(values: Int64[np.ndarray, " n"]) -> list[list[int]]:
    """Integers as runs `[first, step, count]`; exact for any sequence, short for steady ones."""
    runs: list[list[int]] = []
    for value in values.tolist():
        last = runs[-1] if runs else None
        if last is not None and last[2] == 1:
            last[1], last[2] = value - last[0], 2
        elif last is not None and value == last[0] + last[1] * last[2]:
            last[2] += 1
        else:
            runs.append([value, 0, 1])
    return runs


def from_runs(runs: list[list[int]]) -> Int64[np.ndarray, " n"]:
    """Inverse of `to_runs`."""
    parts = [first + step * np.arange(count, dtype=np.int64) for first, step, count in runs]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
