"""RUN/plan.json: how a planner did in held-out tasks, beside others."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from jepa.config.result import Number, Part, Result
from jepa_probes.planning.tasks import Protocol, wilson


class Success(Part):
    """Share of tasks solved, with its 95 % Wilson interval."""

    success: float
    low: float
    high: float
    tasks: int

    @staticmethod
    def of(solved: NDArray[np.bool_]) -> "Success":
        """Of the tasks with a known outcome."""
        share, low, high = wilson(int(solved.sum()), len(solved))
        return Success(success=share, low=low, high=high, tasks=len(solved))


class Entered(Part):
    """Share of the tasks in which a keep-out region was entered, of those that neither begin nor end in one."""

    share: Number
    tasks: int


class Rules(Part):
    """Of tasks with rules beside the goal: shares of the tasks, and the median of what the actions of an episode cost.

    Attributes:
        entered: a region that must not be entered; None without regions.
        over_action_cost: cost more than allowed; None without a limit.
        solved: which tasks.
    """

    entered: Number
    over_action_cost: Number
    median_action_cost: float
    solved: list[bool]


class TrajectoryErrors(Part):
    """Absolute and relative errors of paths, means over tasks; see planning/trajectory.py."""

    ate: float
    rpe: float


class PlanResult(Result, Success):
    """Success of the planner.

    Attributes:
        baselines: of the agents that were given the same tasks, see planning/baselines.py.
        ever_reached: share of tasks that were at the goal at some time; `reached_at_end`: at the end of the
            budget; whatever rule was broken.
        median_distance, distances: from the goal at the end, in `unit`; `distances` of each task. Where the protocol
            judges "ever", the nearest that a task came.
        model_calls_per_plan: imagined steps; `differentiated_calls_per_plan` of them with gradients.
        settings: of the planner; `terms` are the other costs.
        entered: regions of the costs; None without them.
        rules: of the tasks; None without them.
        trajectory: errors of the planner's paths, of random ones and of standing still; None without recorded paths.
    """

    FILE: ClassVar[str] = "plan.json"
    VERB: ClassVar[str] = "plan"
    baselines: dict[str, Success]
    ever_reached: float
    median_distance: Number
    unit: str
    plans_per_task: int
    seconds_per_plan: float
    seconds_per_plan_alone: float
    model_calls_per_plan: int
    differentiated_calls_per_plan: int
    protocol: Protocol
    settings: dict[str, Any]
    seconds: float
    distances: list[Number]
    entered: Entered | None = None
    reached_at_end: float | None = None
    rules: Rules | None = None
    trajectory: dict[str, TrajectoryErrors] | None = None

    def solved(self) -> NDArray[np.bool_]:
        """Which tasks."""
        if self.rules is not None:
            return np.array(self.rules.solved)
        return np.asarray(self.distances, dtype=float) < self.protocol.radius
