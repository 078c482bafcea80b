"""Model-predictive path integral control: plans are weighted by their cost (Williams et al., arXiv 1509.01149).

    weight_k = softmax_k( -(cost_k - min) / (temperature * std of the costs) );  mean, std = weighted over the plans

Costs are standardized in each call. Otherwise, at a fixed temperature, the weights would be uniform for small costs and
one-hot for large ones.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from jepa.config.fields import Count, Positive
from jepa.planners.base import SamplingConfig
from jepa.planners.cem import CEM


class MPPI(CEM):
    """MPPI over the elites of each iteration, as in TD-MPC2 (arXiv 2310.16828)."""

    class Config(SamplingConfig):
        """Settings of CEM, and the temperature of the weights."""

        kind: Literal["mppi"] = "mppi"
        elites: int = Field(default=20, gt=1, description="number of best samples to which the next Gaussian is fitted")
        iterations: Count = Field(default=6, description="sampling iterations")
        temperature: Positive = Field(
            default=0.5,
            description="in standard deviations of the elites' costs; small values follow only the best plan",
        )

    tries_last_mean = True

    def fit(
        self, elites: Float[Tensor, "B E H A"], costs: Float[Tensor, "B E"]
    ) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B H A"]]:
        spread = costs.std(1, keepdim=True).clamp_min(torch.finfo(costs.dtype).tiny)
        weight = (-(costs - costs[:, :1]) / (self.config.temperature * spread)).softmax(1)[..., None, None]
        mean = (weight * elites).sum(1)
        return mean, (weight * (elites - mean[:, None]).square()).sum(1).sqrt()
