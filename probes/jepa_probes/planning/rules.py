"""Rules beside the goal of a task: a region that must not be entered, and a limit of what the actions cost.

    start ·- - - - -( o )- - - - -· goal      a ball lies near the straight line, clear of both ends

Neither was in the recordings. Who breaks a rule has not solved the task, wherever the episode ends.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from jepa.config import UserError
from jepa_data.worlds.base import GoalBatch

CLEAR = 1.5  # radii between the center of a region and either end of its task, at least
ASIDE = 0.5  # radii between the center and the straight line, at most


@dataclass(frozen=True)
class Regions:
    """One ball for each task, in the space of goals."""

    center: Float[np.ndarray, "B G"]
    radius: float

    def contains(self, world: GoalBatch) -> Bool[np.ndarray, " B"]:
        """Which of the first tasks are in their region now."""
        return self.depth(world.goal_state()) > 0

    def depth(
        self, position: Float[np.ndarray, "M G"], task: NDArray[np.intp] | None = None
    ) -> Float[np.ndarray, " M"]:
        """How deep positions lie in the region of their `task` (None: the first M), as a share of its radius."""
        center = self.center[: len(position)] if task is None else self.center[task]
        return (1 - np.linalg.norm(position - center, axis=-1) / self.radius).clip(0)


def draw_regions(world: GoalBatch, goal: Float[np.ndarray, "B G"], radius: float, rng: np.random.Generator) -> Regions:
    """A region near the straight line of each task.

    Raises:
        UserError: the world has ways that are not straight, where a region could close the only one; or a task is too
            short for a region of that radius.
    """
    kind = type(world)
    straight = kind.distance is GoalBatch.distance and kind.distance_to_goal is GoalBatch.distance_to_goal
    if not straight or goal.shape[1] < 2:
        raise UserError(
            f"keep_out_radius: in {world.name} a region on the straight line to the goal could close the only way; "
            "choose a world without walls, such as billiards-easy"
        )
    start = world.goal_state()
    length = np.linalg.norm(goal - start, axis=-1)
    needed = 2 * CLEAR * radius
    if length.min() < needed:
        raise UserError(
            f"keep_out_radius is {radius:g}, so tasks must be at least {needed:g} long, found {length.min():.3g}; "
            "raise min_distance, or lower the radius"
        )
    along = CLEAR * radius + rng.uniform(size=len(goal)) * (length - needed)
    towards = (goal - start) / length[:, None]
    drawn = rng.normal(size=goal.shape)
    sideways = drawn - (drawn * towards).sum(-1, keepdims=True) * towards
    sideways /= np.linalg.norm(sideways, axis=-1, keepdims=True)
    aside = ASIDE * radius * rng.uniform(size=(len(goal), 1))
    return Regions(start + along[:, None] * towards + aside * sideways, radius)


def action_cost_of(actions: NDArray[np.floating]) -> Float[np.ndarray, " B"]:
    """What one step costs: the mean square of its actions, cut to -1..1; 1 is full force."""
    return np.square(actions.clip(-1, 1)).mean(-1)


@dataclass
class Watch:
    """Who breaks a rule, noted while tasks are played.

    Attributes:
        entered: who was in its region at some time.
        action_cost: the sum over all steps.
    """

    regions: Regions | None
    max_action_cost: float | None
    entered: Bool[np.ndarray, " B"]
    action_cost: Float[np.ndarray, " B"] = field(init=False)

    def __post_init__(self) -> None:
        self.action_cost = np.zeros(len(self.entered))

    def step(self, actions: NDArray[np.floating], world: GoalBatch) -> None:
        """The world was moved by these actions."""
        self.action_cost += action_cost_of(actions)
        if self.regions is not None:
            self.entered |= self.regions.contains(world)

    def broken(self) -> Bool[np.ndarray, " B"]:
        """Who broke one."""
        if self.max_action_cost is None:
            return self.entered
        return self.entered | (self.action_cost > self.max_action_cost)
