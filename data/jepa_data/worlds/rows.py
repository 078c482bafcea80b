"""The state of many episodes side by side: an array [E, ...], or a dataclass of such arrays, nested as one likes."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def stack(episodes: Sequence[Any]) -> Any:
    """One state of E episodes, made of E states of one, whose arrays lack the first dimension."""
    first = episodes[0]
    if not is_dataclass(first):
        return np.stack(episodes)
    parts = {f.name: stack([getattr(episode, f.name) for episode in episodes]) for f in fields(first)}
    return type(first)(**parts)


def take(state: Any, index: NDArray[np.intp]) -> Any:
    """A copy of the chosen episodes, in that order, repeats allowed."""
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
    """E."""
    while is_dataclass(state):
        state = getattr(state, fields(state)[0].name)
    return len(state)
