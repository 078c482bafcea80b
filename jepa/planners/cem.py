"""The cross-entropy method: sample plans, keep the best, fit a Gaussian to them, repeat (Rubinstein 1999).

    mean, std = start, s      [B, H, A]
    repeat: actions ~ clip(N(mean, std))  [B, K, H, A];  elites = the E cheapest;  mean, std = of the elites

The present mean is always one of the samples, so a plan never gets worse.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from jepa.config import Component
from jepa.config.fields import Count, Positive
from jepa.planners.base import Plan, Planner, Search, check_elites, choose, draw
from jepa.planners.cost import Cost


class CEM(Planner):
    """Cross-entropy method over action sequences."""

    class Config(Component):
        """How many plans are sampled, and how the Gaussian follows the best."""

        kind: Literal["cem"] = "cem"
        samples: int = Field(default=100, gt=1, description="candidates per iteration and episode")
        elites: int = Field(default=10, gt=1, description="of the samples, to which the next Gaussian is fitted")
        iterations: Count = Field(default=4, description="rounds of sampling")
        std: Positive = Field(default=0.7, description="of the first Gaussian")
        min_std: Positive = Field(default=0.05, description="below which the Gaussian does not shrink")
        cost_tolerance: float | None = Field(
            default=None, description="stop early when the best plan of every episode costs no more; none: never"
        )

    def __init__(self, config: Config) -> None:
        check_elites(config.samples, config.elites)
        self.config = config

    @torch.no_grad()
    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        """See `Planner`."""
        config = self.config
        search = Search(cost, start, self.low, self.high)
        mean, std = search.start, torch.full_like(start, config.std)
        for _ in range(config.iterations):
            noise = draw((len(start), config.samples, *start.shape[1:]), start, generator)
            actions = search.bounded(mean[:, None] + std[:, None] * noise)
            actions[:, 0] = mean
            elites = choose(actions, search(actions).topk(config.elites, dim=1, largest=False).indices)
            mean, std = elites.mean(1), elites.std(1).clamp_min(config.min_std)
            if config.cost_tolerance is not None and (search.best <= config.cost_tolerance).all():
                break
        return search.plan()
