"""What every decoder shares: the index of a video, what a video may cost, and how a file is looked at first.

Shapes: T frames · h w pixels · C = 3 (RGB). Frames are numbered in the order they are shown, from 0.
"""

import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float64, Int64

from jepa_data.errors import DecodeError

Source = bytes | Path | str
Size = tuple[int, int]  # height, width
Crop = tuple[int, int, int, int]  # top, left, height, width, in pixels of the image as it is shown
Indices = Sequence[int] | Int64[np.ndarray, " T"]
Seconds = Sequence[float] | Float64[np.ndarray, " T"]


@dataclass(frozen=True)
class Limits:
    """What one video may cost; beyond it is turned away by name (DecodeError "too large" or "timeout").

    The defaults let through 8K images and two days of video, and stop files that were made to exhaust a machine.

    Attributes:
        max_bytes: of the file.
        max_pixels: of one image.
        max_frames: of the video.
        max_seconds: from the first frame to the last.
        timeout_seconds: for opening, and for one call that decodes. Looked at between packets.
    """

    max_bytes: int = 4 * 2**30
    max_pixels: int = 2**26
    max_frames: int = 2**23
    max_seconds: float = 48 * 3600
    timeout_seconds: float = 60.0

    def check_image(self, width: int, height: int) -> None:
        """Raises DecodeError ("too large")."""
        if width * height > self.max_pixels:
            raise DecodeError("too large", f"images of {width}x{height}; at most {self.max_pixels} pixels are read")

    def check_length(self, frames: int, seconds: float) -> None:
        """Raises DecodeError ("too large")."""
        if frames > self.max_frames:
            raise DecodeError("too large", f"more than {self.max_frames} frames. Cut it into pieces")
        if seconds > self.max_seconds:
            raise DecodeError("too large", f"{seconds:g} seconds; at most {self.max_seconds:g} are read. Cut it")


LIMITS = Limits()
MAX_FRAMES = 10_000_000  # of one video: some 90 hours
DAMAGED = "damaged pictures"  # one of `VideoIndex.hazards`


@dataclass(frozen=True)
class VideoIndex:
    """Where the frames of a video are, in time and in the stream. Cheap to store: it goes into a shard's index.

    Attributes:
        pts: presentation time of each frame in ticks, ascending.
        time_base: seconds per tick.
        keyframes: numbers of the frames a decoder can start from.
        width, height: pixels of the image as it is shown, that is after `rotation`.
        rotation: degrees counter-clockwise (0, 90, 180, 270) by which the stored image is turned to be shown.
        codec: FFmpeg's name of it.
        fps: average rate; 0 for a still image.
        hazards: what about the file makes decoders less careful than PyAV return other frames than were asked for, in
            words ("open groups of pictures", "mpegts container", ...); None where nobody has looked.
    """

    pts: Int64[np.ndarray, " F"]
    time_base: Fraction
    keyframes: Int64[np.ndarray, " G"]
    width: int
    height: int
    rotation: int
    codec: str
    fps: float
    hazards: tuple[str, ...] | None = None

    @property
    def frames(self) -> int:
        return len(self.pts)

    @property
    def seconds(self) -> Float64[np.ndarray, " F"]:
        """When each frame is shown, counted from the first."""
        return (self.pts - self.pts[0]) * float(self.time_base)

    def shown_at(self, seconds: Seconds) -> Int64[np.ndarray, " T"]:
        """Numbers of the frames on screen at these times. Raises DecodeError ("out of range")."""
        times = np.asarray(seconds, np.float64)
        shown = self.seconds
        frame_seconds = 1 / self.fps if self.fps else np.inf
        # Times are rounded to ticks when a video is stored; the last frame stays for one frame's time.
        slack = min(5e-4, frame_seconds / 4)
        end = shown[-1] + frame_seconds
        wrong = times[(times < -slack) | (times > end)]
        if len(wrong):
            raise DecodeError("out of range", f"{wrong[0]:g} s was asked for, the video is shown from 0 to {end:g} s")
        return np.maximum(np.searchsorted(shown, times + slack, side="right") - 1, 0).astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able. Times and keyframes are stored as runs `[first, step, count]`: one run for a steady video."""
        record: dict[str, Any] = {
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
        if self.hazards is not None:
            record["hazards"] = list(self.hazards)
        return record

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
            hazards=None if record.get("hazards") is None else tuple(record["hazards"]),
        )


def refuse(decoder: str, wrong: Sequence[str], url: str) -> None:
    """Raises DecodeError, where there is anything about a file that a decoder is known to get wrong."""
    if DAMAGED in wrong:
        raise DecodeError("damaged", "images lack data. data.backend=pyav reads those that are whole", url=url)
    if wrong:
        raise DecodeError(
            "not supported", f"{decoder} can return wrong frames of {wrong[0]}. Use data.backend=pyav", url=url
        )


def check_count(decoder: str, count: int, index: VideoIndex, url: str) -> None:
    """Raises DecodeError, where a decoder finds another number of frames than there are."""
    if count != index.frames:
        raise DecodeError(
            "not supported", f"{decoder} counts {count} frames of {index.frames}. Use data.backend=pyav", url=url
        )


def url_of(src: Source) -> str:
    """The file, for errors; "" for bytes from memory."""
    return "" if isinstance(src, bytes) else str(src)


def opened(src: Source) -> io.BufferedIOBase:
    """The bytes as a file. Raises DecodeError ("missing", "not a file")."""
    if isinstance(src, bytes):
        return io.BytesIO(src)
    try:
        # Opened without waiting: a pipe in a folder of videos would block the run forever.
        handle = os.open(src, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise DecodeError("missing", f"the file cannot be read ({error.strerror})", url=str(src)) from error
    except ValueError as error:  # a zero byte, or text that is no file name
        raise DecodeError("missing", f"no file can have this name ({error})", url=str(src)) from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise DecodeError("not a file", f"it is {what}", url=str(src))
    return os.fdopen(handle, "rb")


def first_bytes(src: Source, limits: Limits) -> bytes:
    """The first 16 bytes. Raises DecodeError ("empty", "too large", "missing", "not a file")."""
    with opened(src) as file:
        head = file.read(16)
        size = file.seek(0, io.SEEK_END)
    if not size:
        raise DecodeError("empty", "it has 0 bytes", url=url_of(src))
    if size > limits.max_bytes:
        raise DecodeError("too large", f"{size} bytes; at most {limits.max_bytes} are read", url=url_of(src))
    return head


def turned(size: Size, quarter_turns: int) -> Size:
    """Height and width of an image after it was turned."""
    return (size[1], size[0]) if quarter_turns % 2 else size


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
        if runs and runs[-1][2] == 1:
            runs[-1][1:] = [value - runs[-1][0], 2]
        elif runs and value == runs[-1][0] + runs[-1][1] * runs[-1][2]:
            runs[-1][2] += 1
        else:
            runs.append([value, 0, 1])
    return runs


def from_runs(runs: list[list[int]]) -> Int64[np.ndarray, " n"]:
    """Inverse of `to_runs`. Raises DecodeError ("damaged") for more than MAX_FRAMES numbers, or counts below 0."""
    if sum(max(0, count) for _, _, count in runs) > MAX_FRAMES or any(count < 0 for _, _, count in runs):
        raise DecodeError("damaged", f"its index counts more than {MAX_FRAMES} frames, or fewer than none")
    parts = [first + step * np.arange(count, dtype=np.int64) for first, step, count in runs]
    return np.concatenate([np.zeros(0, np.int64), *parts])
