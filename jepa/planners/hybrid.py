"""Sample, then refine by gradient: the sampler finds the basin, the gradient its minimum."""

import copy
from typing import Annotated, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.config import DEFAULT, Component, part
from jepa.planners import SAMPLERS
from jepa.planners.base import Plan, Planner
from jepa.planners.cost import Cost
from jepa.planners.gradient import Gradient


class Hybrid(Planner):
    """A sampling planner, then a gradient planner that starts from its plan."""

    class Config(Component):
        """The two planners; the gradient planner has one start, the plan of the sampler."""

        kind: Literal["hybrid"] = "hybrid"
        sampler: Annotated[Component, part(SAMPLERS, "cem")] = DEFAULT
        refine: Gradient.Config = Gradient.Config(steps=20, lr=0.02, starts=1)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.sampler: Planner = SAMPLERS.make(config.sampler)
        self.refine = Gradient(config.refine)

    def bounded(self, low: float, high: float) -> Self:
        other = copy.copy(self)
        other.sampler = self.sampler.bounded(low, high)
        other.refine = self.refine.bounded(low, high)
        return other

    def gradient_free(self) -> Planner | None:
        return self.sampler.gradient_free()

    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        return self._refined(cost, self.sampler.plan(cost, start, generator), generator)

    def plan_from(self, cost: Cost, starts: Float[Tensor, "B P H A"], generator: torch.Generator) -> Plan:
        return self._refined(cost, self.sampler.plan_from(cost, starts, generator), generator)

    def _refined(self, cost: Cost, sampled: Plan, generator: torch.Generator) -> Plan:
        """The better of a plan and its refinement."""
        refined = self.refine.plan(cost, sampled.actions, generator)
        better = refined.cost < sampled.cost
        return Plan(
            torch.where(better[:, None, None], refined.actions, sampled.actions),
            torch.where(better, refined.cost, sampled.cost),
            sampled.evaluations + refined.evaluations,
            sampled.differentiated + refined.differentiated,
        )
