"""Planning by gradient: Adam on the actions, through the model, from several starts at once.

    actions [B, K, H, A] = start, and start + noise;  repeat: actions -= Adam(d cost / d actions);  clip to the bounds

The model must be differentiable in its actions. The search is precise if the cost is smooth, and gets stuck in local
minima if not: see jepa/planners/hybrid.py.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from jepa.config import Component
from jepa.config.fields import Count, NonNegative
from jepa.planners.base import COST_TOLERANCE, Plan, Planner, Search, Width, draw
from jepa.planners.cost import Cost


class Gradient(Planner):
    """Projected Adam."""

    class Config(Component):
        """Adam steps and starts."""

        kind: Literal["gradient"] = "gradient"
        steps: Count = Field(default=50, description="Adam steps")
        lr: Width = Field(default=0.05, description="learning rate, in units of the actions")
        starts: Count = Field(default=8, description="plans optimized in parallel; the first is the start itself")
        std: Width = Field(default=0.7, description="standard deviation of the noise on the other starts")
        cost_tolerance: NonNegative | None = COST_TOLERANCE

    follows_gradients = True

    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        """See `Planner`. Also raises ValueError if the cost has no gradient with respect to the actions."""
        config = self.config
        search = Search(cost, start, self.low, self.high)
        noise = config.std * draw((len(start), config.starts, *start.shape[1:]), start, generator)
        noise[:, 0] = 0.0
        with torch.enable_grad():
            actions = search.bounded(search.start[:, None] + noise).detach().clone().requires_grad_()
            optimizer = torch.optim.Adam([actions], config.lr)
            for _ in range(config.steps):
                costs = search(actions)
                if not costs.requires_grad:
                    raise ValueError("the cost has no gradient with respect to the actions; use a sampling planner")
                optimizer.zero_grad()
                costs.sum().backward(inputs=[actions])
                optimizer.step()
                with torch.no_grad():
                    actions.clamp_(self.low, self.high)
                if search.reached(config.cost_tolerance):
                    break
        with torch.no_grad():
            search(actions.detach())
        return search.plan()
