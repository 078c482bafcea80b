"""Which frames of a video make a clip: seconds in, frame numbers out.

A clip of T frames at a rate `fps` starts on a frame and takes, every 1/fps seconds, the frame that is then on screen.

    video at 20 fps     f f f f f f f f f f f f     | = frame, numbers from 0
    T=4, fps=none           c c c c                 consecutive frames: 2 3 4 5
    T=4, fps=10             c . c . c . c           every second one:   2 4 6 8
    T=4, fps=7              c . . c . . c . c       the one on screen:  2 4 7 10 (rates that do not divide)

`action[t]` takes frame t to frame t+1 of the VIDEO. A clip that takes every k-th frame has, between two of its frames,
k actions of the video; they are put side by side, so that its actions are k times as wide.
"""

import numpy as np
from jaxtyping import Float, Int64

from jepa_data.errors import DataError

# Purposes of random numbers: two draws with the same (seed, epoch, slot) and another purpose are independent.
ORDER, START, SUBSTITUTE = 0, 1, 2


def slot_generator(seed: int, purpose: int, epoch: int, slot: int = 0, attempt: int = 0) -> np.random.Generator:
    """Random numbers of one slot of one epoch. A counter-based generator: no state is carried from slot to slot."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, epoch, slot, attempt]))


def possible_starts(seconds: Float[np.ndarray, " F"], clip_frames: int, fps: float | None) -> int:
    """How many frames of a video a clip can start on; 0 if it is too short.

    Args:
        seconds: when each frame is shown, from 0, ascending.
    """
    if fps is None:
        return max(0, len(seconds) - clip_frames + 1)
    span = (clip_frames - 1) / fps
    return int(np.searchsorted(seconds, seconds[-1] - span + _slack(seconds), side="right"))


def clip_indices(
    seconds: Float[np.ndarray, " F"], start: int, clip_frames: int, fps: float | None
) -> Int64[np.ndarray, " T"]:
    """Numbers of the frames of a clip that starts on frame `start`; see the drawing above.

    Raises:
        DataError: the video ends before the clip does.
    """
    if not 0 <= start < possible_starts(seconds, clip_frames, fps):
        rate = "its own rate" if fps is None else f"{fps:g} fps"
        raise DataError(
            f"no clip of {clip_frames} frames at {rate} starts on frame {start}: the video has {len(seconds)}"
        )
    if fps is None:
        return np.arange(start, start + clip_frames, dtype=np.int64)
    times = seconds[start] + np.arange(clip_frames) / fps
    return np.searchsorted(seconds, times + _slack(seconds), side="right").astype(np.int64) - 1


def spread_start(starts: int, clip: int, clips: int) -> int:
    """Start frame of clip `clip` of `clips` laid evenly over a video; a single one lies in its middle."""
    return int((clip + 0.5) / clips * (starts - 1) + 0.5)


def nearest_start(seconds: Float[np.ndarray, " F"], wanted_seconds: float) -> int:
    """Number of the frame shown at `wanted_seconds`."""
    return max(0, int(np.searchsorted(seconds, wanted_seconds + _slack(seconds), side="right")) - 1)


def action_stride(video_fps: float, fps: float | None) -> int:
    """Actions of the video between two frames of a clip.

    Raises:
        DataError: the rates do not divide: frames of a clip would have different numbers of actions between them.
    """
    stride = 1.0 if fps is None else video_fps / fps
    if abs(stride - round(stride)) > 1e-3 or round(stride) < 1:
        raise DataError(
            f"data.fps: {fps:g} does not divide {video_fps:g}, the rate of the actions. "
            f"Use {video_fps:g}, {video_fps / 2:g}, {video_fps / 4:g}, …, or leave it out"
        )
    return round(stride)


def clip_actions(
    actions: Float[np.ndarray, "P A"], indices: Int64[np.ndarray, " T"], stride: int
) -> Float[np.ndarray, "T-1 kA"]:
    """Actions between the frames of a clip, `stride` of them side by side for each step."""
    steps = indices[:-1, None] + np.arange(stride)
    return actions[steps].reshape(len(indices) - 1, stride * actions.shape[1])


def _slack(seconds: Float[np.ndarray, " F"]) -> float:
    """Half a millisecond, or less in very fast video: times are rounded to ticks when a video is stored."""
    return min(5e-4, float(seconds[-1]) / max(1, len(seconds) - 1) / 4)
