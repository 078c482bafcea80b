"""From the numbers that planners and controllers search to the actions of the data, and back.

    action = center + scale * number

in a box      numbers -1..1 cover low..high of the data: center (low + high) / 2, scale (high - low) / 2
without one   numbers are standardized: center mean, scale std of the data; nothing bounds them

Data whose range is -1..1 are searched as they are.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from jepa_data.actions import ActionStats, assumed


class ActionScaling:
    """Searched numbers to actions `width` wide.

    Args:
        stats: of the model's data; None: their range is -1..1.
        standardized: search in standard deviations around the mean, without bounds; else in the range.
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
