"""Checks for missing and infinite numbers in actions and states.

A state may be missing (NaN) for a whole episode, if its quantity does not exist there, and at the first frame, if it
describes the last step (a reward). Other NaN values, NaN actions and infinite numbers are errors.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Real

from jepa_data.errors import DecodeError

NOT_FINITE = "not finite"  # kind of the error
LOST_SHARE = 0.01  # of the range of a column: rounding to float32 may cost so much
ROUNDING = 64 * np.finfo(np.float64).eps  # a column that varies by less, at its size, is a constant that was computed


def as_float32(array: np.ndarray) -> Float32[np.ndarray, "..."]:
    """Convert numbers to float32. Raises DecodeError if they do not fit."""
    if array.dtype == np.float32:
        return array
    with np.errstate(over="ignore"):
        stored = array.astype(np.float32)
    if (np.isinf(stored) & np.isfinite(array)).any():
        raise DecodeError("too large", f"it holds numbers up to {np.abs(array).max():.3g}; float32 ends at 3.4e38")
    # int64 does not fit float64 either, so the values are compared as integers.
    if array.dtype.kind in "iu" and array.size and max(-int(array.min()), int(array.max())) > 2**24:
        raise DecodeError(
            "too large",
            f"it holds integers up to {max(-int(array.min()), int(array.max()))}; float32 tells integers apart up to "
            f"{2**24}. Store differences, or another unit",
        )
    _check_detail(array, stored)
    return stored


def _check_detail(array: np.ndarray, stored: Float32[np.ndarray, "..."]) -> None:
    """Raises DecodeError for a column whose variation is below the precision of float32 (Unix times, UTM)."""
    if array.dtype.itemsize <= stored.dtype.itemsize or array.ndim == 0 or len(array) < 2 or not array.size:
        return
    wide = array.reshape(len(array), -1).astype(np.float64)
    wide = np.where(np.isfinite(wide), wide, np.nan)
    lost = np.nan_to_num(np.abs(wide - stored.reshape(len(array), -1))).max(0)
    known = np.where(np.isnan(wide), -np.inf, wide).max(0), np.where(np.isnan(wide), np.inf, wide).min(0)
    spread = np.nan_to_num(known[0] - known[1], neginf=0.0)
    size = np.maximum(np.abs(known[0]), np.abs(known[1]))
    for column in np.flatnonzero((lost > LOST_SHARE * spread) & (spread > ROUNDING * size)).tolist():
        raise DecodeError(
            "too fine",
            f"column {column + 1} varies by {spread[column]:.3g} around {known[1][column]:.9g}: float32 stores it with "
            f"errors of {lost[column]:.2g}. Store differences from its first value, or another unit",
        )


def check_actions(actions: Float[np.ndarray, "P A"]) -> None:
    """Raises DecodeError for an action that is NaN or infinite."""
    if np.isfinite(actions).all():
        return
    row, column = np.argwhere(~np.isfinite(actions))[0]
    raise DecodeError(
        NOT_FINITE,
        f"its actions hold {actions[row, column]} (number {column + 1} of {actions.shape[1]}, first in the action at "
        f"frame {row}); expected finite numbers. Correct the recording, or leave this sample out",
    )


def check_events(events: Real[np.ndarray, "P W"], names: Sequence[str]) -> None:
    """Raises DecodeError for what is no number of an event: 0 for none, and 1 to the number of `names`."""
    wrong = ~((events >= 0) & (events <= len(names)) & (events == np.floor(events)))
    if not wrong.any() and events.shape[1]:
        return
    found = "rows without numbers"
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        found = f"{events[row, column]:g} at frame {row}"
    known = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
    raise DecodeError("no event", f"its events are 0 for none, {known}; found {found}")


def check_states(states: Float[np.ndarray, "T X"], names: Sequence[str] = ()) -> tuple[int, ...]:
    """Indices of columns that are missing (NaN) at every frame. Raises DecodeError for columns missing at some frames.

    Args:
        names: of the columns, for the message; () if unknown.
    """
    if np.isfinite(states).all():
        return ()
    missing = np.isnan(states)
    absent = missing.all(0)
    wrong = np.isinf(states)
    # At the first frame alone NaN is right: see the module's docstring.
    wrong[1:] |= missing[1:] & ~absent
    if len(states) > 1:
        wrong[0] |= missing[1:].all(0) & ~missing[0]
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        value = states[row, column]
        later = ", and NaN later," if np.isfinite(value) else ""
        name = names[column] if len(names) == states.shape[1] else f"number {column + 1} of {states.shape[1]}"
        raise DecodeError(
            NOT_FINITE,
            f"its state {name} is {value:g}{later} at frame {row}; expected finite numbers, or NaN "
            "at every frame where the quantity does not exist. Correct the recording, or leave this sample out",
        )
    return tuple(np.flatnonzero(absent).tolist())
