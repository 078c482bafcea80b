"""The range and the standard deviation of actions, number by number: what a manifest of shards and a model say of them.

Actions are stored in their own units (pixels, radians, metres). What reads them takes the unit from here: a predictor
standardizes by mean and std, and planners search between low and high. Nothing here imports torch.
"""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from jaxtyping import Float
from pydantic import model_validator

from jepa.config import Config

Numbers = tuple[float, ...]
NUMBERS = ("low", "high", "mean", "std")


class ActionStats(Config):
    """Range, mean and standard deviation of each of the A numbers of an action, in the units of the data.

    Attributes:
        low, high: the range of the recorded actions; of a simulated world at least -1..1, which all worlds take.
        mean, std: over the actions that are trained on.
        origin: where the range comes from. "world": the simulated world declares it; "data": it is the smallest and
            the largest recorded number; "assumed": nobody said, and -1..1 is taken for it.
    """

    low: Numbers
    high: Numbers
    mean: Numbers
    std: Numbers
    origin: Literal["world", "data", "assumed"] = "data"

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        if not self.low or len({len(getattr(self, name)) for name in NUMBERS}) > 1:
            raise ValueError("actions: low, high, mean and std need one number for each number of an action")
        rows = np.array([getattr(self, name) for name in NUMBERS], np.float64)
        if not np.isfinite(rows).all() or (rows[0] > rows[1]).any() or (rows[3] < 0).any():
            raise ValueError("actions: expected finite numbers, low <= high and std >= 0")
        return self

    @property
    def width(self) -> int:
        """A."""
        return len(self.low)

    def resized(self, width: int) -> "ActionStats":
        """The same for actions `width` wide: several of these side by side, or one of several that are side by side.

        Raises:
            ValueError: neither width divides the other.
        """
        if width == self.width:
            return self
        if not width or max(width, self.width) % min(width, self.width):
            raise ValueError(f"statistics of {self.width} numbers do not fit actions {width} wide")
        if width > self.width:
            times = width // self.width
            return self.model_copy(update={name: getattr(self, name) * times for name in NUMBERS})
        parts = [
            self.model_copy(update={name: getattr(self, name)[first : first + width] for name in NUMBERS})
            for first in range(0, self.width, width)
        ]
        return mixed(parts, [1.0] * len(parts))


def assumed(width: int) -> ActionStats:
    """The default for actions without statistics: -1..1, mean 0 and std 1."""
    return ActionStats(
        low=(-1.0,) * width, high=(1.0,) * width, mean=(0.0,) * width, std=(1.0,) * width, origin="assumed"
    )


def mixed(parts: Sequence[ActionStats], weights: Sequence[float]) -> ActionStats:
    """Of actions drawn from several sources by weight: the range of all, and their common mean and deviation."""
    share = np.array(weights, np.float64)[:, None] / sum(weights)
    mean = np.array([part.mean for part in parts])
    std = np.array([part.std for part in parts])
    middle = (share * mean).sum(0)
    deviation = np.sqrt((share * (std**2 + (mean - middle) ** 2)).sum(0))
    origins = {part.origin for part in parts}
    return ActionStats(
        low=_numbers(np.min([part.low for part in parts], axis=0)),
        high=_numbers(np.max([part.high for part in parts], axis=0)),
        mean=_numbers(middle),
        std=_numbers(deviation),
        origin=parts[0].origin if len(origins) == 1 else "data",
    )


class ActionSums(Config):
    """What is known of some actions, so that more can be added: `squares` are squared differences from the mean."""

    count: int
    low: Numbers
    high: Numbers
    mean: Numbers
    squares: Numbers

    @classmethod
    def of(cls, actions: Float[np.ndarray, "P A"]) -> Self:
        """Of P >= 1 finite actions."""
        rows = actions.astype(np.float64)
        mean = rows.mean(0)
        return cls(
            count=len(rows),
            low=_numbers(rows.min(0)),
            high=_numbers(rows.max(0)),
            mean=_numbers(mean),
            squares=_numbers(((rows - mean) ** 2).sum(0)),
        )

    def plus(self, other: "ActionSums") -> "ActionSums":
        """Of both together (Chan et al. 1979), which loses nothing where the mean is large beside the deviation."""
        count = self.count + other.count
        apart = np.subtract(other.mean, self.mean)
        return ActionSums(
            count=count,
            low=_numbers(np.minimum(self.low, other.low)),
            high=_numbers(np.maximum(self.high, other.high)),
            mean=_numbers(np.array(self.mean) + apart * other.count / count),
            squares=_numbers(np.add(self.squares, other.squares) + apart**2 * self.count * other.count / count),
        )


def stats_of(trained: ActionSums, every: ActionSums, world: str | None) -> ActionStats:
    """The statistics of a corpus.

    Args:
        trained: of the split that is trained on: mean and deviation.
        every: of all splits: the range.
        world: the simulated world it was recorded in; None for other video.
    """
    deviation = np.sqrt(np.array(trained.squares) / trained.count)
    stats = ActionStats(low=every.low, high=every.high, mean=trained.mean, std=_numbers(deviation))
    if world is None:
        return stats
    # Every world takes -1..1 (worlds/base.py), also where a recording uses less of it.
    reach = {"low": _numbers(np.minimum(every.low, -1.0)), "high": _numbers(np.maximum(every.high, 1.0))}
    return stats.model_copy(update=reach | {"origin": "world"})


def _numbers(array: np.ndarray) -> Numbers:
    return tuple(array.tolist())
