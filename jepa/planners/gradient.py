"""Planning by gradient: Adam on the actions, through the model, from several starts at once.

    actions [B, K, H, A] = start, and start + noise;  repeat: actions -= Adam(d cost / d actions);  clip to the bounds

The model must be differentiable in its actions. Exact where the cost is smooth, and stuck where it is not: see
jepa/planners/hybrid.py.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.planners.base import Plan, Search, draw
from jepa.planners.cost import Cost


@dataclass(frozen=True)
class Gradient:
    """Projected Adam.

    Attributes:
        steps: of Adam.
        lr: its learning rate, in units of the actions.
        starts: K; the first is the start itself.
        std: of the noise on the others.
        cost_tolerance: stop early when the best plan of every episode costs no more; None: never.
        low, high: bounds of every action dimension.
    """

    steps: int = 50
    lr: float = 0.05
    starts: int = 8
    std: float = 0.7
    cost_tolerance: float | None = None
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.starts < 1 or self.lr <= 0:
            raise ValueError(
                "a gradient planner needs at least one step and one start and a learning rate above 0; found "
                f"{self.steps}, {self.starts}, {self.lr}"
            )

    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        """See `Planner`. Also raises ValueError if the cost does not depend on the actions by a gradient."""
        search = Search(cost, start, self.low, self.high)
        noise = self.std * draw((len(start), self.starts, *start.shape[1:]), start, generator)
        noise[:, 0] = 0.0
        with torch.enable_grad():
            actions = search.bounded(search.start[:, None] + noise).detach().clone().requires_grad_()
            optimizer = torch.optim.Adam([actions], self.lr)
            for _ in range(self.steps):
                costs = search(actions)
                if not costs.requires_grad:
                    raise ValueError("the cost has no gradient with respect to the actions; use a sampling planner")
                optimizer.zero_grad()
                costs.sum().backward(inputs=[actions])
                optimizer.step()
                with torch.no_grad():
                    actions.clamp_(self.low, self.high)
                if self.cost_tolerance is not None and (search.best <= self.cost_tolerance).all():
                    break
        with torch.no_grad():
            search(actions.detach())
        return search.plan()
