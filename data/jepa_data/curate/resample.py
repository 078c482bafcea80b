"""Actions and states, brought to the clock of the frames: T frames, T-1 actions, T states.

    frames       |     |     |     |        f_t, from the video's own times
    commands    x   x   x   x   x   x       each holds until the next one
    actions      ──0── ──1── ──2──          the mean of what held between two frames
    states      s     s     s     s         a straight line between two measurements, read at each frame

What was recorded on its own clock is looked for here, for actions and, in the same way, for states:

1. metadata.json   "actions": {"seconds": [K numbers], "values": [K rows of A numbers]}
2. actions.npy     K rows, and in metadata.json  "actions_seconds": [K numbers]
3. actions.npy     T-1 rows (states.npy: T rows) without times: on the clock of the frames already, and left alone

Seconds count from the first frame, or, where metadata.json says "video_began": SECONDS, on the clock of that number.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from jepa_data.curate.config import Resample
from jepa_data.errors import DecodeError
from jepa_data.sampling import SLACK
from jepa_data.shards.finite import as_float32, check_states
from jepa_data.shards.manifest import ACTIONS, EVENTS, STATES
from jepa_data.shards.read import read_array, read_npy

BEGAN = "video_began"


@dataclass(frozen=True, slots=True)
class Clocked:
    """What belongs to the frames of a sample. `metadata` is that of the sample without what has become arrays."""

    actions: Float32[np.ndarray, "P A"] | None
    states: Float32[np.ndarray, "T X"] | None
    metadata: dict[str, Any]
    events: Float32[np.ndarray, "P W"] | None = None

    @property
    def widths(self) -> tuple[int, int]:
        """A and X; 0 where there are none."""
        return _width(self.actions), _width(self.states)


def as_stored(members: Mapping[str, bytes], metadata: Mapping[str, Any], frames: int) -> Clocked:
    """Actions and states of a sample that are in step with its frames already. Raises DecodeError."""
    actions = states = None
    if ACTIONS in members:
        actions = read_npy(members[ACTIONS], frames - 1)
    if STATES in members:
        states = read_npy(members[STATES], frames)
    return Clocked(actions, states, dict(metadata), read_array(members, EVENTS, frames - 1))


def resampled(
    members: Mapping[str, bytes], metadata: Mapping[str, Any], frames: Float64[np.ndarray, " T"], resample: Resample
) -> Clocked:
    """Actions and states of a sample at the times of its frames. Events are in step with the frames already.

    Args:
        frames: when each is shown, in seconds from the first.

    Raises:
        DecodeError: "out of step" (rows do not fit, no times), "no measurement" (a gap longer than allowed), "damaged".
    """
    rest = dict(metadata)
    began = _number(rest.pop(BEGAN, 0.0), BEGAN)

    def moved(name: str, recorded: Recorded, rows: int, move: Move) -> Float32[np.ndarray, "rows X"]:
        seconds, values = recorded
        if seconds is None:
            return as_float32(_in_step(name, values, rows))
        seconds = seconds - began
        _check_gaps(name.removesuffix("s"), seconds, frames, resample.max_gap_seconds)
        return as_float32(move(seconds, values, frames))

    actions = states = None
    if recorded := _recorded("actions", ACTIONS, members, rest):
        if not np.isfinite(recorded[1]).all():
            raise DecodeError("damaged", "its actions hold numbers that are not finite")
        actions = moved("actions", recorded, len(frames) - 1, _ACTIONS[resample.actions])
    if recorded := _recorded("states", STATES, members, rest):
        states = moved("states", recorded, len(frames), _STATES[resample.states])
        check_states(states)
    return Clocked(actions, states, rest, read_array(members, EVENTS, len(frames) - 1))


Recorded = tuple[Float64[np.ndarray, " K"] | None, Float64[np.ndarray, "K A"]]
Move = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _recorded(name: str, member: str, members: Mapping[str, bytes], metadata: dict[str, Any]) -> Recorded | None:
    """Times and values as they were recorded; their keys are taken out of `metadata`."""
    if isinstance(metadata.get(name), dict) and {"seconds", "values"} <= set(metadata[name]):
        record = metadata.pop(name)
        return _checked(name, record["seconds"], record["values"])
    if member not in members:
        return None
    values = _read_rows(members[member])
    times = metadata.pop(f"{name}_seconds", None)
    if times is None:
        return None, values
    return _checked(name, times, values)


def _read_rows(data: bytes) -> Float64[np.ndarray, "K A"]:
    """An array of any number of rows. Raises DecodeError."""
    try:
        rows = np.load(io.BytesIO(data), allow_pickle=False).shape[0]
    except (ValueError, EOFError, OSError, AttributeError, IndexError) as error:
        raise DecodeError("damaged", f"an array cannot be read: {error}") from error
    return read_npy(data, rows).astype(np.float64)


def _checked(name: str, seconds: Any, values: Any) -> Recorded:
    try:
        times = np.asarray(seconds, np.float64)
        rows = np.asarray(values, np.float64)
    except (ValueError, TypeError) as error:
        raise DecodeError("damaged", f"its {name} are no rows of numbers: {error}") from error
    if times.ndim != 1 or rows.ndim != 2 or len(times) != len(rows) or not rows.size:
        raise DecodeError("out of step", f"{name} of shape {rows.shape} for times of shape {times.shape}")
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise DecodeError("damaged", f"the times of its {name} do not ascend")
    return times, rows


def _in_step(name: str, values: Float64[np.ndarray, "K A"], rows: int) -> Float64[np.ndarray, "K A"]:
    if len(values) != rows:
        raise DecodeError(
            "out of step",
            f"{len(values)} {name}, expected {rows} for its frames, and nothing says when they were recorded "
            f"({name}_seconds)",
        )
    return values


def _check_gaps(
    name: str, seconds: Float64[np.ndarray, " K"], frames: Float64[np.ndarray, " T"], allowed: float
) -> None:
    """Raises DecodeError if, between the first and the last frame, nothing was measured for longer than allowed."""
    first = frames[0]
    last = frames[-1]
    measured = seconds[(seconds >= first - allowed) & (seconds <= last + allowed)]
    if not len(measured):
        raise DecodeError(
            "no measurement",
            f"no {name} was recorded between the first and the last frame (0 to {last - first:.3f} s); theirs are at "
            f"{seconds[0]:.3f} to {seconds[-1]:.3f} s. Do both count from the first frame ({BEGAN})?",
        )
    knots = np.clip(np.concatenate([[first], measured, [last]]), first, last)
    gaps = np.diff(knots)
    widest = int(gaps.argmax())
    if gaps[widest] > allowed + SLACK:
        raise DecodeError(
            "no measurement",
            f"no {name} was recorded for {gaps[widest]:.3f} s from {knots[widest]:.3f} s on; at most {allowed:g} s are "
            "bridged (max_gap_seconds)",
        )


# ---- from recorded times to those of frames; `values` [K, A] at `seconds` [K], `frames` [T] --------------------------


def _last(seconds: np.ndarray, values: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The value at each time: the last one before it, or the first there is."""
    return values[np.maximum(np.searchsorted(seconds, frames + SLACK, side="right") - 1, 0)]


def _mean_command(seconds: np.ndarray, values: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Mean over [f_t, f_t+1] of a command that holds until the next one."""
    knots = np.append(seconds, max(seconds[-1], frames[-1]) + 1.0)  # the last command holds on
    knots[0] = min(knots[0], frames[0])  # the first one was there before
    area = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values * np.diff(knots)[:, None], axis=0)])
    at = np.stack([np.interp(frames, knots, column) for column in area.T], axis=1)
    return np.diff(at, axis=0) / np.diff(frames)[:, None]


def _sum_of_steps(seconds: np.ndarray, values: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Sum of the rows recorded in [f_t, f_t+1)."""
    done = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    return np.diff(done[np.searchsorted(seconds, frames - SLACK, side="left")], axis=0)


def _between(seconds: np.ndarray, values: np.ndarray, frames: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(frames, seconds, column) for column in values.T], axis=1)


_ACTIONS = {
    "mean": _mean_command,
    "last": lambda seconds, values, frames: _last(seconds, values, frames[:-1]),
    "sum": _sum_of_steps,
}
_STATES = {"linear": _between, "last": _last}


def _width(values: Float32[np.ndarray, "rows X"] | None) -> int:
    if values is None:
        return 0
    return values.shape[1]


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise DecodeError("damaged", f"metadata.json: {name}: expected a number of seconds, found {value!r}")
    return float(value)
