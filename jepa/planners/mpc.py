"""Model-predictive control: plan, act on the first steps, look again, plan on from the rest of the last plan."""

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.planners.cem import CEM, Plan
from jepa.planners.cost import Cost


class ModelPredictiveControl:
    """Keeps the unused rest of each plan as the start of the next one.

    Args:
        planner: finds a plan for a cost.
        horizon: H, steps looked ahead.
        execute: steps of a plan that are acted on before planning again.
        action_size: A, width of one step's action.
        seed: of the planner's samples.
    """

    def __init__(self, planner: CEM, *, horizon: int, execute: int, action_size: int, seed: int = 0) -> None:
        if not 1 <= execute <= horizon:
            raise ValueError(f"execute must lie between 1 and the horizon ({horizon}), found {execute}")
        self.planner, self.horizon, self.execute, self.action_size = planner, horizon, execute, action_size
        self.generator = torch.Generator().manual_seed(seed)
        self._rest: Float[Tensor, "B R A"] | None = None

    def reset(self) -> None:
        """Forget the last plan: a new episode begins."""
        self._rest = None

    def plan(self, cost: Cost, batch: int) -> Plan:
        """A plan of `horizon` steps for each of `batch` episodes; its first `execute` steps are to be acted on."""
        start = torch.zeros(batch, self.horizon, self.action_size)
        if self._rest is not None:
            if len(self._rest) != batch:
                raise ValueError(f"{batch} episodes after {len(self._rest)}: call reset() between runs")
            start[:, : self._rest.shape[1]] = self._rest
        plan = self.planner.plan(cost, start, self.generator)
        self._rest = plan.actions[:, self.execute :]
        return plan
