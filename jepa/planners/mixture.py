"""Refinement around several plans at once, for costs with more than one valley.

    plans = the starts, and samples around them;  elites = the E cheapest
    repeat: children ~ elite_e + std * noise, S / E of each;  elite_e = the cheapest of itself and its children

CEM fits one Gaussian to its elites: between two ways round a wall, its mean is the wall. Here every elite goes on by
itself, and the cheapest wins at the end. Noise is correlated over time, as in iCEM, and shrinks from round to round.
Elites keep their costs, so no plan is imagined twice.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from jepa.planners.base import Plan, Planner, SamplingConfig, Search, Width, choose, draw
from jepa.planners.cost import Cost
from jepa.planners.icem import colored


class Mixture(Planner):
    """Searches around each of its elites."""

    class Config(SamplingConfig):
        """How many plans are sampled, and how far from the elites."""

        kind: Literal["mixture"] = "mixture"
        elites: int = Field(default=10, gt=0, description="plans that are improved side by side")
        std: Width = Field(default=0.5, description="of the noise on the starts, and on the first elites")
        decay: float = Field(default=0.7, gt=0, le=1, description="of the std, from one round to the next")
        beta: float = Field(default=2.0, ge=0, description="color of the noise: 0 white, 1 pink, 2 red")

    several_starts: ClassVar[bool] = True

    @torch.no_grad()
    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        return self.plan_from(cost, start[:, None], generator)

    @torch.no_grad()
    def plan_from(self, cost: Cost, starts: Float[Tensor, "B P H A"], generator: torch.Generator) -> Plan:
        config = self.config
        search = Search(cost, starts[:, 0], self.low, self.high)
        number = max(config.samples, starts.shape[1])
        plans = starts[:, torch.arange(number) % starts.shape[1]]
        noise = self._noise(plans, generator)
        noise[:, : starts.shape[1]] = 0.0
        plans = search.bounded(plans + config.std * noise)
        costs = search(plans)
        costs, index = costs.topk(config.elites, dim=1, largest=False)
        elites = choose(plans, index)
        children = config.samples // config.elites
        std = config.std
        for _ in range(config.iterations - 1):
            if search.reached(config.cost_tolerance):
                break
            parents = elites.repeat_interleave(children, 1)
            plans = search.bounded(parents + std * self._noise(parents, generator))
            values, best = search(plans).unflatten(1, (config.elites, children)).min(2)
            born = choose(plans, best + children * torch.arange(config.elites, device=best.device))
            better = values < costs
            elites = torch.where(better[..., None, None], born, elites)
            costs = torch.where(better, values, costs)
            std = max(std * config.decay, config.min_std)
        return search.plan()

    def _noise(self, like: Float[Tensor, "B K H A"], generator: torch.Generator) -> Float[Tensor, "B K H A"]:
        if like.shape[2] == 1:
            return draw(tuple(like.shape), like, generator)
        return colored(tuple(like.shape), self.config.beta, like, generator)
