"""What the packer does to a video, and what comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jepa_data.decode.base import VideoIndex
from jepa_data.errors import DataError
from jepa_data.shards.encode import PixelFormat


@dataclass(frozen=True)
class Recipe:
    """How videos are stored.

    Attributes:
        video: "encode" makes them cheap to read; "copy" keeps their bytes, or their packets where they are cut.
        short_side: pixels of the shorter side; smaller images keep their size (but for odd sides, which lose a line).
        fps: frames a second, taken from those on screen; None: each video's own.
        slower: what becomes of videos with fewer: "keep" their own rate, or "repeat" frames.
        gop: frames from keyframe to keyframe.
        crf: x264's quality; lower is better and larger.
        pixel_format: see `Mp4Encoder`.
        scene_threshold: cut where PySceneDetect finds a change of at least this; None: do not look for scenes.
        max_seconds: cut what is longer into equal parts; None: never.
        min_seconds: pieces shorter than this are dropped.
    """

    video: Literal["encode", "copy"] = "encode"
    short_side: int = 256
    fps: float | None = 15.0
    slower: Literal["keep", "repeat"] = "keep"
    gop: int = 8
    crf: int = 23
    pixel_format: PixelFormat = "yuv420p"
    scene_threshold: float | None = None
    max_seconds: float | None = 60.0
    min_seconds: float = 0.0

    def __post_init__(self) -> None:
        bounds = {"--short-side": (self.short_side, 16), "--gop": (self.gop, 1), "--min-seconds": (self.min_seconds, 0)}
        for name, (value, minimum) in bounds.items():
            if value < minimum:
                raise DataError(f"{name}: expected at least {minimum}, found {value:g}")
        given = {"--fps": self.fps, "--max-seconds": self.max_seconds, "--scene-threshold": self.scene_threshold}
        for name, value in given.items():
            if value is not None and not value > 0:
                raise DataError(f"{name}: expected more than 0, found {value:g}")
        if not 0 <= self.crf <= 51:
            raise DataError(f"--crf: expected 0 (every pixel kept) to 51, found {self.crf}")
        if self.max_seconds is not None and self.min_seconds > self.max_seconds:
            raise DataError(f"--min-seconds {self.min_seconds:g} is longer than --max-seconds {self.max_seconds:g}")


@dataclass(frozen=True, slots=True)
class Piece:
    """A sample, ready to be written. `source` is what it was cut from, in seconds."""

    key: str
    ending: str
    data: bytes
    index: VideoIndex
    actions: np.ndarray | None
    states: np.ndarray | None
    metadata: Mapping[str, Any]
    source: Mapping[str, Any]
    spatial: Mapping[str, np.ndarray]
    events: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A video, or a part of one, that could not be packed."""

    source: str
    start: float | None
    end: float | None
    kind: str
    detail: str

    def __str__(self) -> str:
        part = "" if self.start is None or self.end is None else f" from {self.start:.2f} to {self.end:.2f} s"
        return f"{self.source}{part}: {self.kind}: {self.detail}"


def scaled(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width after packing: the aspect kept, never larger, both sides even."""
    scale = min(1.0, short_side / min(height, width))
    return _even(height * scale), _even(width * scale)


def _even(side: float) -> int:
    # Rounded down: what is not scaled is never made larger, not even by a line.
    return max(2, round(side) // 2 * 2)
