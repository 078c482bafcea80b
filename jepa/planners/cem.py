"""The cross-entropy method: sample plans, keep the best, fit a Gaussian to them, repeat (Rubinstein 1999).

    mean, std = start, s      [B, H, A]
    repeat: actions ~ clip(N(mean, std))  [B, K, H, A];  elites = the E cheapest;  mean, std = of the elites

The current mean is always one of the samples, so the plan never gets worse.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.planners.base import Plan, Planner, SamplingConfig, Search, choose, draw
from jepa.planners.cost import Cost


class CEM(Planner):
    """Cross-entropy method over action sequences."""

    class Config(SamplingConfig):
        """Number of samples, and fit of the Gaussian."""

        kind: Literal["cem"] = "cem"

    tries_last_mean: ClassVar[bool] = False

    @torch.no_grad()
    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        config = self.config
        search = Search(cost, start, self.low, self.high)
        mean, std = search.start, torch.full_like(start, config.std)
        for _ in range(config.iterations):
            noise = draw((len(start), config.samples, *start.shape[1:]), start, generator)
            actions = search.bounded(noise.mul_(std[:, None]).add_(mean[:, None]))
            actions[:, 0] = mean
            costs, index = search(actions).topk(config.elites, dim=1, largest=False)
            mean, std = self.fit(choose(actions, index), costs)
            std = std.clamp_min(config.min_std)
            if search.reached(config.cost_tolerance):
                break
        if self.tries_last_mean:
            search(mean[:, None])
        return search.plan()

    def fit(
        self, elites: Float[Tensor, "B E H A"], costs: Float[Tensor, "B E"]
    ) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B H A"]]:
        """Mean and standard deviation of the next Gaussian; elites are in the order of their costs."""
        return elites.mean(1), elites.std(1)
