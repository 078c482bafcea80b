"""Model-predictive path integral control: every plan counts by how cheap it is (Williams et al., arXiv 1509.01149).

    weight_k = softmax_k( -(cost_k - min) / (temperature * std of the costs) );  mean, std = weighted over the plans

Costs are standardized in each call: with a fixed temperature the weights are uniform for small costs and one-hot for
large ones.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from jepa.config.fields import Count, Positive
from jepa.planners.base import Plan, Planner, SamplingConfig, Search, choose, draw
from jepa.planners.cost import Cost


class MPPI(Planner):
    """MPPI over the elites of each iteration, as in TD-MPC2 (arXiv 2310.16828)."""

    class Config(SamplingConfig):
        """As in CEM, and how sharply cheap plans are preferred."""

        kind: Literal["mppi"] = "mppi"
        elites: int = Field(default=20, gt=1, description="of the samples, to which the next Gaussian is fitted")
        iterations: Count = Field(default=6, description="rounds of sampling")
        temperature: Positive = Field(
            default=0.5, description="in std of the elites' costs; a small one follows the best plan alone"
        )

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
            values, index = search(actions).topk(config.elites, dim=1, largest=False)
            spread = values.std(1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
            weight = (-(values - values[:, :1]) / (config.temperature * spread)).softmax(1)[..., None, None]
            elites = choose(actions, index)
            mean = (weight * elites).sum(1)
            std = (weight * (elites - mean[:, None]).square()).sum(1).sqrt().clamp_min(config.min_std)
            if search.reached(config.cost_tolerance):
                break
        search(mean[:, None])
        return search.plan()
