"""Which frames of a video make a clip: seconds in, frame numbers out.

A clip of T frames at a rate `fps` starts on a frame and takes, every 1/fps seconds, the frame that is then on screen.

    video at 20 fps     f f f f f f f f f f f f     | = frame, numbers from 0
    T=4, fps=none           c c c c                 consecutive frames: 2 3 4 5
    T=4, stride=3           c . . c . . c . . c     every third one:    2 5 8 11
    T=4, fps=10             c . c . c . c           every second one:   2 4 6 8
    T=4, fps=7              c . . c . . c . c       the one on screen:  2 4 7 10 (rates that do not divide)

`action[t]` takes frame t to frame t+1 of the VIDEO. A clip that takes every k-th frame has, between two of its frames,
k actions of the video; they are put side by side, so that its actions are k times as wide.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer

from jepa_data.errors import DataError

# Purposes of random numbers: two draws with the same (seed, epoch, position) and another purpose are independent.
ORDER, START, SUBSTITUTE, SHARDS, MIX, CROP, AUGMENT = range(7)
SLACK = 5e-4  # seconds: times are rounded to ticks when a video is stored
BOX_ATTEMPTS = 10  # as in torchvision's RandomResizedCrop


def clip_generator(seed: int, purpose: int, epoch: int, position: int = 0, attempt: int = 0) -> np.random.Generator:
    """Random numbers of one clip of one epoch. A counter-based generator: clips share no state."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, epoch, position, attempt]))


def possible_starts(seconds: Float[np.ndarray, " F"], clip_frames: int, fps: float | None, stride: int = 1) -> int:
    """How many frames of a video a clip can start on; 0 if it is too short.

    Args:
        seconds: when each frame is shown, from 0, ascending.
        stride: without `fps`: every n-th frame of the video.
    """
    if fps is None:
        return max(0, len(seconds) - (clip_frames - 1) * stride)
    span = (clip_frames - 1) / fps
    return int(np.searchsorted(seconds, seconds[-1] - span + _slack(seconds), side="right"))


def clip_indices(
    seconds: Float[np.ndarray, " F"], start: int, clip_frames: int, fps: float | None, stride: int = 1
) -> Int64[np.ndarray, " T"]:
    """Numbers of the frames of a clip that starts on frame `start`; see the drawing above.

    Raises:
        DataError: the video ends before the clip does.
    """
    if not 0 <= start < possible_starts(seconds, clip_frames, fps, stride):
        clip = f"{clip_frames} frames at " + (f"stride {stride}" if fps is None else f"{fps:g} fps")
        raise DataError(f"no clip of {clip} starts on frame {start}: the video has {len(seconds)}")
    if fps is None:
        return start + stride * np.arange(clip_frames, dtype=np.int64)
    times = seconds[start] + np.arange(clip_frames) / fps
    return np.searchsorted(seconds, times + _slack(seconds), side="right").astype(np.int64) - 1


def spread_start(starts: int, clip: int, clips: int) -> int:
    """Start frame of clip `clip` of `clips` laid evenly over a video; a single one lies in its middle."""
    return int((clip + 0.5) / clips * (starts - 1) + 0.5)


def nearest_start(seconds: Float[np.ndarray, " F"], wanted_seconds: float) -> int:
    """Number of the frame shown at `wanted_seconds`."""
    return max(0, int(np.searchsorted(seconds, wanted_seconds + _slack(seconds), side="right")) - 1)


def long_enough(
    frames: Integer[np.ndarray, " V"],
    seconds: Float[np.ndarray, " V"],
    clip_frames: int,
    fps: float | None,
    stride: int,
) -> Bool[np.ndarray, " V"]:
    """Which of many videos a clip fits into: `possible_starts(…) > 0` from frame counts and times of last frames."""
    if fps is None:
        return frames > (clip_frames - 1) * stride
    slack = np.minimum(SLACK, seconds / np.maximum(1, frames - 1) / 4)
    return (frames > 0) & (seconds + slack >= (clip_frames - 1) / fps)


def random_box(
    random: np.random.Generator, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Top, left, height, width in whole pixels of a random part of an image, as in Inception's training.

    Args:
        scale: range of the part's area, as a share of the image's.
        ratio: range of width / height, drawn evenly in its logarithm.
    """
    for _ in range(BOX_ATTEMPTS):
        area = height * width * random.uniform(*scale)
        shape = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide = round(math.sqrt(area * shape))
        high = round(math.sqrt(area / shape))
        if 0 < wide <= width and 0 < high <= height:
            break
    # Where no attempt fits, the last one is cut to the image.
    wide = max(1, min(width, wide))
    high = max(1, min(height, high))
    return int(random.integers(height - high + 1)), int(random.integers(width - wide + 1)), high, wide


def fitted_box(
    height: int, width: int, image_size: int | None, fit: Literal["crop", "stretch"], shortest_edge: int | None = None
) -> tuple[int, int, int, int] | None:
    """The part of an image that a model of square images sees: top, left, height, width; None: all of it.

    Args:
        image_size: side in pixels of what the model reads; the part is scaled to it. None: images as they are.
        fit: the middle square, or all of the image out of proportion.
        shortest_edge: with "crop", the short side is scaled to this before the square is cut; None: to `image_size`.
    """
    if fit == "stretch" or image_size is None:
        return None
    side = min(height, width)
    if shortest_edge is not None:
        side = max(1, round(side * image_size / max(shortest_edge, image_size)))
    if side == height == width:
        return None
    return (height - side) // 2, (width - side) // 2, side, side


def action_stride(video_fps: float, fps: float | None, stride: int = 1) -> int:
    """Actions of the video between two frames of a clip; without `fps`, one for each frame of the stride.

    Raises:
        DataError: the rates do not divide: frames of a clip would have different numbers of actions between them.
    """
    if fps is None:
        return stride
    actions = video_fps / fps
    if abs(actions - round(actions)) > 1e-3 or round(actions) < 1:
        raise DataError(
            f"data.fps: {fps:g} does not divide {video_fps:g}, the rate of the actions. "
            f"Use {video_fps:g}, {video_fps / 2:g}, {video_fps / 4:g}, …, or leave it out"
        )
    return round(actions)


def clip_actions(
    actions: Float[np.ndarray, "P A"], indices: Int64[np.ndarray, " T"], stride: int
) -> Float[np.ndarray, "T-1 kA"]:
    """Actions between the frames of a clip, `stride` of them side by side for each step."""
    steps = indices[:-1, None] + np.arange(stride)
    return actions[steps].reshape(len(indices) - 1, stride * actions.shape[1])


def _slack(seconds: Float[np.ndarray, " F"]) -> float:
    """Half a millisecond, or less in very fast video: times are rounded to ticks when a video is stored."""
    return min(SLACK, float(seconds[-1]) / max(1, len(seconds) - 1) / 4)
