"""Random actions that are repeated for a while: drawn again every frame, they would cancel out."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def repeat_in_box(rng: np.random.Generator, frames: int, width: int, longest: int) -> NDArray[np.float32]:
    """Actions [frames-1, width] drawn evenly from -1..1, each repeated for 1 to `longest` frames."""
    return _repeat(rng, frames, longest, lambda: rng.uniform(-1, 1, width), width)


def repeat_choices(rng: np.random.Generator, frames: int, width: int, longest: int) -> NDArray[np.float32]:
    """Actions [frames-1, width], one entry 1 and the others 0, each repeated for 1 to `longest` frames."""
    return _repeat(rng, frames, longest, lambda: np.eye(width)[rng.integers(width)], width)


def repeat_in_disc(rng: np.random.Generator, frames: int, longest: int) -> NDArray[np.float32]:
    """Actions [frames-1, 2] drawn evenly from the unit disc, each repeated for 1 to `longest` frames."""

    def draw() -> NDArray[np.float64]:
        strength = np.sqrt(rng.uniform())
        angle = rng.uniform(0, 2 * np.pi)
        return strength * np.array([np.cos(angle), np.sin(angle)])

    return _repeat(rng, frames, longest, draw, 2)


def _repeat(
    rng: np.random.Generator, frames: int, longest: int, draw: Callable[[], NDArray[np.float64]], width: int
) -> NDArray[np.float32]:
    actions = np.zeros((frames - 1, width), np.float32)
    at = 0
    while at < frames - 1:
        count = rng.integers(1, longest + 1)
        actions[at : at + count] = draw()
        at += count
    return actions
