"""A policy for recordings: the expert of a world goes from goal to goal, with noise."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from jepa_data.worlds.base import GoalBatch

GOALS = 64  # more than fit into any recording; afterwards the first comes again


class WaypointBatch(GoalBatch):
    """A world with an expert, whose goals depend on the current state.

    Attributes:
        goal_draws: U, number of random numbers for a goal.
        waypoint_radius: below this distance to a goal, the expert continues to the next goal.
        noise: standard deviation of the noise on the actions of the expert.
    """

    policies = ("random", "noisy-expert")
    goal_draws: int
    waypoint_radius: float
    noise: float

    @abstractmethod
    def goals_from(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Goals [E, G] at a minimum distance from the current states, computed from numbers [E, U] in 0..1."""

    def draw_goals(self, rng: np.random.Generator) -> NDArray[np.float64]:
        return self.goals_from(rng.uniform(size=(len(self), self.goal_draws)))

    def policy_actions(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """Actions [E, frames-1, A]: random, or of the expert, from goal to goal with noise."""
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
