"""Random actions that are held for a while: drawn anew every frame, they would cancel out and move nothing far."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def held_in_box(rng: np.random.Generator, frames: int, width: int, longest: int) -> NDArray[np.float32]:
    """Actions [frames-1, width] drawn evenly from -1..1, each held for 1 to `longest` frames."""
    return _held(rng, frames, longest, lambda: rng.uniform(-1, 1, width), width)


def held_choices(rng: np.random.Generator, frames: int, width: int, longest: int) -> NDArray[np.float32]:
    """Actions [frames-1, width] of which one entry is 1 and the others are 0, each held for 1 to `longest` frames."""
    return _held(rng, frames, longest, lambda: np.eye(width)[rng.integers(width)], width)


def held_in_disc(rng: np.random.Generator, frames: int, longest: int) -> NDArray[np.float32]:
    """Actions [frames-1, 2] drawn evenly from the unit disc, each held for 1 to `longest` frames."""

    def draw() -> NDArray[np.float64]:
        strength, angle = np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        return strength * np.array([np.cos(angle), np.sin(angle)])

    return _held(rng, frames, longest, draw, 2)


def _held(
    rng: np.random.Generator, frames: int, longest: int, draw: Callable[[], NDArray[np.float64]], width: int
) -> NDArray[np.float32]:
    actions = np.zeros((frames - 1, width), np.float32)
    at = 0
    while at < frames - 1:
        hold = rng.integers(1, longest + 1)
        actions[at : at + hold] = draw()
        at += hold
    return actions
