"""The cross-entropy method: sample plans, keep the best, fit a Gaussian to them, repeat (Rubinstein 1999).

    mean, std = start, s      [B, H, A]
    repeat: actions ~ clip(N(mean, std))  [B, K, H, A];  elites = the E cheapest;  mean, std = of the elites

The present mean is always one of the samples, so a plan never gets worse.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.planners.base import Plan, Search, check, choose, draw
from jepa.planners.cost import Cost


@dataclass(frozen=True)
class CEM:
    """Cross-entropy method over action sequences.

    Attributes:
        samples: K, candidates per iteration and episode.
        elites: how many of them the next Gaussian is fitted to.
        iterations: rounds of sampling.
        std: of the first Gaussian.
        min_std: below which the Gaussian is not allowed to shrink.
        cost_tolerance: stop early when the best plan of every episode costs no more; None: never.
        low, high: bounds of every action dimension.
    """

    samples: int = 100
    elites: int = 10
    iterations: int = 4
    std: float = 0.7
    min_std: float = 0.05
    cost_tolerance: float | None = None
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check(self.samples, self.elites, self.iterations)

    @torch.no_grad()
    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        """See `Planner`."""
        search = Search(cost, start, self.low, self.high)
        mean, std = search.start, torch.full_like(start, self.std)
        for _ in range(self.iterations):
            noise = draw((len(start), self.samples, *start.shape[1:]), start, generator)
            actions = search.bounded(mean[:, None] + std[:, None] * noise)
            actions[:, 0] = mean
            elites = choose(actions, search(actions).topk(self.elites, dim=1, largest=False).indices)
            mean, std = elites.mean(1), elites.std(1).clamp_min(self.min_std)
            if self.cost_tolerance is not None and (search.best <= self.cost_tolerance).all():
                break
        return search.plan()
