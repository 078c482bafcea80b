"""Random shooting: plans drawn uniformly within the bounds; the best one wins."""

import math
from typing import Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from jepa.config import Component
from jepa.config.fields import Count
from jepa.planners.base import Plan, Planner, Search
from jepa.planners.cost import Cost


class RandomShooting(Planner):
    """Uniform random plans; the baseline for other planners."""

    class Config(Component):
        """Number of plans."""

        kind: Literal["random"] = "random"
        samples: Count = Field(default=1000, description="plans for each episode, including the start")

    def bounded(self, low: float, high: float) -> Self:
        if not math.isfinite(high - low):
            raise ValueError("random shooting draws evenly within bounds; give it some, or use another planner")
        return super().bounded(low, high)

    @torch.no_grad()
    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        search = Search(cost, start, self.low, self.high)
        shape = (len(start), self.config.samples, *start.shape[1:])
        actions = self.low + (self.high - self.low) * torch.rand(shape, generator=generator).to(start)
        actions[:, 0] = search.start
        search(actions)
        return search.plan()
