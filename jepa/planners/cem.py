"""The cross-entropy method: sample plans, keep the best, fit a Gaussian to them, repeat (Rubinstein 1999).

    mean, std = 0, s          [B, H, A]
    repeat: actions ~ clip(N(mean, std))  [B, K, H, A];  elites = the E cheapest;  mean, std = of the elites

All B episodes are planned at once. The present mean is always one of the samples, so a plan never gets worse.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.planners.cost import Cost


@dataclass(frozen=True)
class Plan:
    """The plan found for each episode and what it costs."""

    actions: Float[Tensor, "B H A"]
    cost: Float[Tensor, " B"]


@dataclass(frozen=True)
class CEM:
    """Cross-entropy method over action sequences.

    Attributes:
        samples: K, candidates per iteration and episode.
        elites: how many of them the next Gaussian is fitted to.
        iterations: rounds of sampling.
        std: of the first Gaussian.
        min_std: below which the Gaussian is not allowed to shrink.
        low, high: bounds of every action dimension.
    """

    samples: int = 100
    elites: int = 10
    iterations: int = 4
    std: float = 0.7
    min_std: float = 0.05
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 1 < self.elites <= self.samples:
            raise ValueError(f"elites must lie between 2 and samples ({self.samples}), found {self.elites}")
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, found {self.iterations}")

    @torch.no_grad()
    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        """Improve on `start`, the mean of the first Gaussian (zeros, or the rest of the last plan).

        Raises:
            ValueError: the horizon is 0, or a cost is not finite.
        """
        batch, horizon, width = start.shape
        if not horizon:
            raise ValueError("the planning horizon is 0; plan at least one step ahead")
        mean, std = start, torch.full_like(start, self.std)
        best, best_cost = start, torch.full((batch,), torch.inf, device=start.device)
        for _ in range(self.iterations):
            noise = torch.randn((batch, self.samples, horizon, width), generator=generator).to(start)
            actions = (mean[:, None] + std[:, None] * noise).clamp(self.low, self.high)
            actions[:, 0] = mean
            costs = cost(actions)
            if not torch.isfinite(costs).all():
                count = int((~torch.isfinite(costs)).sum())
                raise ValueError(
                    f"{count} of {costs.numel()} plans have a cost that is not finite; is the model diverged?"
                )
            values, index = costs.topk(self.elites, dim=1, largest=False)
            elites = actions.gather(1, index[..., None, None].expand(-1, -1, horizon, width))
            mean, std = elites.mean(1), elites.std(1).clamp_min(self.min_std)
            better = values[:, 0] < best_cost
            best = torch.where(better[:, None, None], elites[:, 0], best)
            best_cost = torch.where(better, values[:, 0], best_cost)
        return Plan(best, best_cost)
