"""Model-predictive control: plan, take the first steps, observe, and replan from the rest of the last plan.

decisions  d0          d1          d2 …        of the planner, -1..1; each is repeated for `action_repeat` actions
actions    d0 d0 d0 d0 d1 d1 d1 d1 d2 …        of the environment
blocks     [         ] [         ] [ …         `frames` concatenated actions, which take one latent step to the next

Actions are in the units of the data. Decisions are scaled: -1..1 covers the range of the data (see action_scaling.py).
With bounds "none", they are standard deviations around the mean of the data.
"""

import math
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jepa.planners.action_scaling import ActionScaling
from jepa.planners.base import Plan, Planner, within_ball
from jepa.planners.cost import Cost, LatentCost
from jepa_data.actions import ActionStats

PlanBounds = Literal["box", "ball", "none"]


class ModelPredictiveControl:
    """Replans every `replan_every` latent steps.

    Args:
        planner: searches for a plan of low cost.
        horizon: H, latent steps of a plan.
        replan_every: latent steps taken before replanning.
        action_size: A, width of one action of the environment.
        frames: actions per latent step.
        action_repeat: environment steps for which each action is repeated. With fewer decisions, the search is easier,
            and random plans reach further.
        bounds: box: the range of the data, per dimension; ball: also a norm of the decision of at most 1, for worlds
            that clip longer actions; none: no bounds, as in DINO-WM and LeWM. The `std` of a planner is in half ranges
            of the data, and with bounds none in standard deviations.
        keep: start each plan from the rest of the last one; otherwise from the middle of the range (bounds none: from
            the mean).
        actions: action statistics of the data; None: the range is -1..1.
        budget: actions of an episode; no block that would come after its end is planned. None: not known.
        seed: of the planner's samples.
    """

    def __init__(
        self,
        planner: Planner,
        *,
        horizon: int,
        replan_every: int,
        action_size: int,
        frames: int = 1,
        action_repeat: int = 1,
        bounds: PlanBounds = "box",
        keep: bool = True,
        seed: int = 0,
        actions: ActionStats | None = None,
        budget: int | None = None,
    ) -> None:
        if horizon < 1:
            raise ValueError(f"the planning horizon is {horizon}; plan at least one step ahead")
        if not 1 <= replan_every <= horizon:
            raise ValueError(f"replan_every must lie between 1 and the horizon ({horizon}), found {replan_every}")
        if action_repeat < 1 or horizon * frames % action_repeat or replan_every * frames % action_repeat:
            raise ValueError(
                f"action_repeat must divide the actions of the horizon ({horizon * frames}) and those of replan_every "
                f"({replan_every * frames}), found {action_repeat}"
            )
        if bounds == "none":
            planner = planner.bounded(-math.inf, math.inf)
        self.planner = planner
        self.horizon, self.replan_every = horizon, replan_every
        self.action_size = action_size
        self.frames, self.action_repeat = frames, action_repeat
        self.bounds, self.keep = bounds, keep
        self.budget = budget
        self.scaling = ActionScaling(actions, action_size, standardized=bounds == "none")
        self.generator = torch.Generator().manual_seed(seed)
        self.reset()

    def reset(self) -> None:
        """Start a new episode: clear the last plan."""
        self._rest: Float[Tensor, "B R A"] | None = None
        self._plans = 0

    def plan(
        self,
        cost: Cost,
        batch: int,
        suggested: Float[Tensor, "B H E"] | None = None,
        stuck: Bool[Tensor, " B"] | None = None,
        proposals: Float[Tensor, "B P H E"] | None = None,
    ) -> Plan:
        """A plan of `next_horizon` blocks for each of `batch` episodes. Take its first `replan_every` and replan.

        Args:
            suggested: blocks to start from; None: see `keep`.
            stuck: episodes whose blocks to take are replaced by one random action, uniform in the range (bounds none:
                within a standard deviation of the mean).
            proposals: other blocks to start from. With them, and for every planner with `several_starts`, standing
                still (action 0) is another start.
        """
        horizon = self.next_horizon()
        start = torch.zeros(batch, horizon * self.frames // self.action_repeat, self.action_size)
        wide = (batch, horizon, self.frames * self.action_size)
        for blocks in (suggested, None if proposals is None else proposals[:, 0]):
            if blocks is not None and blocks.shape != wide:
                raise ValueError(
                    f"expected a suggestion [episodes, horizon, width of a block] = {list(wide)}, found "
                    f"{list(blocks.shape)}"
                )
        if suggested is not None:
            start = self.decisions(suggested)
        elif self.keep and self._rest is not None:
            if len(self._rest) != batch:
                raise ValueError(f"{batch} episodes after {len(self._rest)}: call reset() between runs")
            rest = self._rest[:, : start.shape[1]]
            start[:, : rest.shape[1]] = rest
        if isinstance(cost, LatentCost):
            repeated: Cost = replace(cost, blocks=self.blocks)
        else:
            repeated = lambda decisions: cost(self.blocks(decisions))  # noqa: E731
        plan = self.planner.plan_from(repeated, self._starts(start, proposals), self.generator)
        decisions = plan.actions
        acted = self.replan_every * self.frames // self.action_repeat
        self._rest = decisions[:, acted:]
        self._plans += 1
        if stuck is not None and stuck.any():
            drawn = 2 * torch.rand(batch, 1, self.action_size, generator=self.generator).to(decisions) - 1
            first = torch.where(stuck[:, None, None], drawn, decisions[:, :acted])
            decisions = torch.cat([first, self._rest], 1)
        return replace(plan, actions=self.blocks(decisions))

    def next_horizon(self) -> int:
        """H, blocks of the next plan: at least one, a whole number of decisions, none after the episode's end."""
        if self.budget is None:
            return self.horizon
        left = self.budget - self._plans * self.replan_every * self.frames
        horizon = max(1, -(-left // self.frames))
        while horizon * self.frames % self.action_repeat:
            horizon += 1
        return min(horizon, self.horizon)

    def _starts(
        self, start: Float[Tensor, "B Q A"], proposals: Float[Tensor, "B P H E"] | None
    ) -> Float[Tensor, "B S Q A"]:
        """Where the planner starts: there, standing still, and from what is proposed."""
        starts = [start]
        if proposals is not None or self.planner.several_starts:
            starts.append(self.scaling.numbers(torch.zeros_like(start)))
        if proposals is not None:
            starts += self.decisions(proposals).to(start).unbind(1)
        return torch.stack(starts, 1)

    def decisions(self, blocks: Float[Tensor, "*batch H E"]) -> Float[Tensor, "*batch Q A"]:
        """The decisions closest to these blocks: the mean over each `action_repeat`."""
        actions = blocks.unflatten(-1, (self.frames, self.action_size)).flatten(-3, -2)
        return self.scaling.numbers(actions.unflatten(-2, (-1, self.action_repeat)).mean(-2))

    def blocks(self, decisions: Float[Tensor, "*batch Q A"]) -> Float[Tensor, "*batch H E"]:
        """The blocks of actions of the planner's decisions, for the dynamics."""
        if self.bounds == "ball":
            decisions = within_ball(decisions)
        actions = self.scaling.actions(decisions).repeat_interleave(self.action_repeat, -2)
        return actions.unflatten(-2, (-1, self.frames)).flatten(-2)
