"""Sample, then refine by gradient: the sampler finds the valley, the gradient its bottom."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.planners.base import Plan, Planner
from jepa.planners.cem import CEM
from jepa.planners.cost import Cost
from jepa.planners.gradient import Gradient


@dataclass(frozen=True)
class Hybrid:
    """One planner after the other; what the first found is where the second starts.

    Attributes:
        sampler: such as CEM.
        refine: with one start, the sampler's plan.
    """

    sampler: Planner = field(default_factory=CEM)
    refine: Gradient = field(default_factory=lambda: Gradient(steps=20, lr=0.02, starts=1))

    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        """See `Planner`."""
        found = self.sampler.plan(cost, start, generator)
        refined = self.refine.plan(cost, found.actions, generator)
        better = refined.cost < found.cost
        return Plan(
            torch.where(better[:, None, None], refined.actions, found.actions),
            torch.where(better, refined.cost, found.cost),
            found.evaluations + refined.evaluations,
            found.differentiated + refined.differentiated,
        )
