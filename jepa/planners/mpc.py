"""Model-predictive control: plan, act on the first steps, look again, plan on from the rest of the last plan."""

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.planners.base import Plan, Planner
from jepa.planners.cost import Cost


class ModelPredictiveControl:
    """Keeps the unused rest of each plan as the start of the next one.

    Args:
        planner: finds a plan for a cost.
        horizon: H, steps looked ahead.
        execute: steps of a plan that are acted on before planning again.
        action_size: A, width of one step's action.
        repeat: steps for which an action is held: a plan has horizon / repeat decisions.
        seed: of the planner's samples.
    """

    def __init__(
        self, planner: Planner, *, horizon: int, execute: int, action_size: int, repeat: int = 1, seed: int = 0
    ) -> None:
        if not 1 <= execute <= horizon:
            raise ValueError(f"execute must lie between 1 and the horizon ({horizon}), found {execute}")
        if repeat < 1 or horizon % repeat or execute % repeat:
            raise ValueError(
                f"repeat must divide the horizon ({horizon}) and the executed steps ({execute}), found {repeat}"
            )
        self.planner, self.horizon, self.execute, self.action_size = planner, horizon, execute, action_size
        self.repeat = repeat
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
        if self.repeat == 1:
            plan = self.planner.plan(cost, start, self.generator)
        else:
            found = self.planner.plan(self._held(cost), start[:, :: self.repeat], self.generator)
            plan = Plan(found.actions.repeat_interleave(self.repeat, 1), found.cost, found.evaluations)
        self._rest = plan.actions[:, self.execute :]
        return plan

    def _held(self, cost: Cost) -> Cost:
        return lambda decisions: cost(decisions.repeat_interleave(self.repeat, 2))
