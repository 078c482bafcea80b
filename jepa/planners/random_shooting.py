"""Random shooting: as many plans as there is time for, evenly within the bounds; the best one is taken."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.planners.base import Plan, Search
from jepa.planners.cost import Cost


@dataclass(frozen=True)
class RandomShooting:
    """The floor among planners: whatever cannot beat it does not plan.

    Attributes:
        samples: K, plans tried for each episode; the start is one of them.
        low, high: bounds of every action dimension.
    """

    samples: int = 1000
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, found {self.samples}")
        if not math.isfinite(self.high - self.low):
            raise ValueError("random shooting draws evenly within bounds; give it some, or use another planner")

    @torch.no_grad()
    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        """See `Planner`."""
        search = Search(cost, start, self.low, self.high)
        shape = (len(start), self.samples, *start.shape[1:])
        actions = self.low + (self.high - self.low) * torch.rand(shape, generator=generator).to(start)
        actions[:, 0] = search.start
        search(actions)
        return search.plan()
