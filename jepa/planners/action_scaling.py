"""Scaling between the numbers that planners and controllers choose and the actions of the data.

    action = center + scale * number

in a box      numbers -1..1 cover low..high of the data: center (low + high) / 2, scale (high - low) / 2
without one   numbers are standardized: center mean, scale std of the data; no bounds

For data in the range -1..1, both are the same.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from jepa_data.actions import ActionStats, assumed


class ActionScaling:
    """Maps planner outputs to actions of size `width`.

    Args:
        stats: action statistics of the training data; None: the range is -1..1.
        standardized: scale by mean and standard deviation, without bounds; otherwise by the range.
    """

    def __init__(self, stats: ActionStats | None, width: int, *, standardized: bool = False) -> None:
        stats = (stats or assumed(width)).resized(width)
        low = torch.tensor(stats.low, dtype=torch.float64)
        high = torch.tensor(stats.high, dtype=torch.float64)
        self.center, self.scale = (low + high) / 2, (high - low) / 2
        if standardized:
            self.center = torch.tensor(stats.mean, dtype=torch.float64)
            self.scale = torch.tensor(stats.std, dtype=torch.float64)

    def actions(self, numbers: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """Differentiable."""
        return self.center.to(numbers) + self.scale.to(numbers) * numbers

    def numbers(self, actions: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """The inverse; 0 where an action does not vary in the data."""
        scale = self.scale.to(actions)
        return (actions - self.center.to(actions)) / torch.where(scale > 0, scale, torch.inf)
