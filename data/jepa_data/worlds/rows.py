"""The state of parallel episodes: an array [E, ...], or a (nested) dataclass of such arrays."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def stack(episodes: Sequence[Any]) -> Any:
    """Stack the states of E single episodes, whose arrays have no batch dimension."""
    first = episodes[0]
    if not is_dataclass(first):
        return np.stack(episodes)
    parts = {f.name: stack([getattr(episode, f.name) for episode in episodes]) for f in fields(first)}
    return type(first)(**parts)


def take(state: Any, index: NDArray[np.intp]) -> Any:
    """A copy of the chosen episodes, in that order; repeats are allowed."""
    if not is_dataclass(state):
        return state[index]
    return type(state)(**{f.name: take(getattr(state, f.name), index) for f in fields(state)})


def put(state: Any, index: NDArray[np.intp], episodes: Any) -> None:
    """Replace the episodes at `index`, in place."""
    if not is_dataclass(state):
        state[index] = episodes
        return
    for field in fields(state):
        put(getattr(state, field.name), index, getattr(episodes, field.name))


def count(state: Any) -> int:
    """The number of episodes E."""
    while is_dataclass(state):
        state = getattr(state, fields(state)[0].name)
    return len(state)
