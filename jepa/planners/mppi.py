"""Model-predictive path integral control: every plan counts by how cheap it is (Williams et al., arXiv 1509.01149).

    weight_k = softmax_k( -(cost_k - min) / (temperature * std of the costs) );  mean, std = weighted over the plans

Costs are standardized in each call: with a fixed temperature the weights are uniform for small costs and one-hot for
large ones.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.planners.base import Plan, Search, check, choose, draw
from jepa.planners.cost import Cost


@dataclass(frozen=True)
class MPPI:
    """MPPI over the elites of each iteration, as TD-MPC2 (arXiv 2310.16828) has it.

    Attributes:
        samples, elites, iterations, std, min_std, enough, low, high: as in CEM.
        temperature: in standard deviations of the elites' costs; small ones follow the best plan alone.
    """

    samples: int = 100
    elites: int = 20
    iterations: int = 6
    std: float = 0.7
    min_std: float = 0.05
    temperature: float = 0.5
    cost_tolerance: float | None = None
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check(self.samples, self.elites, self.iterations)
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, found {self.temperature}")

    @torch.no_grad()
    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        """See `Planner`."""
        search = Search(cost, start, self.low, self.high)
        mean, std = search.start, torch.full_like(start, self.std)
        for _ in range(self.iterations):
            noise = draw((len(start), self.samples, *start.shape[1:]), start, generator)
            actions = search.bounded(mean[:, None] + std[:, None] * noise)
            actions[:, 0] = mean
            values, index = search(actions).topk(self.elites, dim=1, largest=False)
            spread = values.std(1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
            weight = (-(values - values[:, :1]) / (self.temperature * spread)).softmax(1)[..., None, None]
            elites = choose(actions, index)
            mean = (weight * elites).sum(1)
            std = (weight * (elites - mean[:, None]).square()).sum(1).sqrt().clamp_min(self.min_std)
            if self.cost_tolerance is not None and (search.best <= self.cost_tolerance).all():
                break
        search(mean[:, None])
        return search.plan()
