"""A policy that records data: a world's own expert goes from one goal to the next, with noise."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from jepa_data.worlds.base import GoalBatch

GOALS = 64  # more than fit into any recording; afterwards the first comes again


class WaypointBatch(GoalBatch):
    """A world with an expert, whose goals depend on where an episode is.

    Attributes:
        goal_draws: U, how many random numbers make a goal.
        waypoint_radius: on its way, the expert leaves a goal for the next at a distance below it.
        noise: standard deviation of what is added to every action of the expert.
    """

    policies = ("random", "noisy-expert")
    goal_draws: int
    waypoint_radius: float
    noise: float

    @abstractmethod
    def goals_from(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Goals [E, G], far enough from where the episodes are, made of numbers [E, U] in 0..1."""

    def draw_goals(self, rng: np.random.Generator) -> NDArray[np.float64]:
        return self.goals_from(rng.uniform(size=(len(self), self.goal_draws)))

    def policy_actions(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """Actions [E, frames-1, A]: random ones, or the expert's, who goes from one goal to the next, with noise."""
        if policy == "random":
            return super().policy_actions(policy, generators, frames)
        unit = np.stack([rng.uniform(size=(GOALS, self.goal_draws)) for rng in generators])
        added = np.stack([rng.normal(0, self.noise, (frames - 1, self.action_size)) for rng in generators])
        rows = np.arange(len(self))
        world = self.take(rows)
        number = np.zeros(len(self), dtype=np.intp)
        goal = world.goals_from(unit[:, 0])
        actions = np.zeros(added.shape, np.float32)
        for t in range(frames - 1):
            there = world.distance(goal) < self.waypoint_radius
            if there.any():
                number[there] = (number[there] + 1) % GOALS
                goal[there] = world.goals_from(unit[rows, number])[there]
            actions[:, t] = (world.expert(goal).clip(-1, 1) + added[:, t]).clip(-1, 1)
            world.step(actions[:, t])
        return actions
