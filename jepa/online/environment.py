"""Episodes of a world with rewards: its own (`gym:ID`), or minus the distance to a fixed goal.

    image_0 ─a_0─> image_1 ─a_1─> …         each action for `action_repeat` environment steps, whose rewards add up
                   reward_1

B episodes run side by side: one to collect, several to evaluate.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jepa.config import UserError
from jepa.online.config import EnvironmentConfig
from jepa_data.worlds import make_batch
from jepa_data.worlds.base import GoalBatch, WorldBatch
from jepa_data.worlds.gym import REWARD, TERMINATED


@dataclass(frozen=True)
class Outcome:
    """What followed from B actions.

    Attributes:
        reward: of the environment steps that they took; 0 after the end of an episode.
        terminated: the world ended the episode.
        over: it did, or a limit of time cut it.
    """

    reward: Float[np.ndarray, " B"]
    terminated: Bool[np.ndarray, " B"]
    over: Bool[np.ndarray, " B"]


class Environment:
    """Parallel episodes.

    Args:
        episodes: their numbers, from which all that is random in them follows.

    Attributes:
        discrete: whether an action is one-hot; otherwise it is in -1..1.
        steps: environment steps so far.

    Raises:
        DataError: there is no such world, it renders no images, or a package is missing.
        UserError: the world has no rewards and no goals, or `goal` does not fit it.
    """

    def __init__(self, config: EnvironmentConfig, episodes: np.ndarray) -> None:
        self.config = config
        self.world = make_batch(config.world, episodes, image_size=config.image_size)
        self.discrete = bool(getattr(self.world, "discrete", False))
        self.action_size = self.world.action_size
        self.fps = self.world.fps / config.action_repeat
        self.steps = 0
        self.over = np.zeros(len(episodes), dtype=bool)
        self.goal = _goal(config, self.world)

    def images(self) -> UInt8[np.ndarray, "B h w 3"]:
        return self.world.render()

    def step(self, actions: Float[np.ndarray, "B A"]) -> Outcome:
        """Take the actions; episodes that are over stay as they are."""
        reward = np.zeros(len(self.over))
        terminated = np.zeros(len(self.over), dtype=bool)
        for _ in range(self.config.action_repeat):
            going = ~self.over
            self.world.step(actions)
            self.steps += 1
            reward[going] += self._rewards()[going]
            terminated |= going & self._terminated()
            self.over = self.over | self.world.terminated() | (self.steps >= self.config.max_steps)
            if self.over.all():
                break
        return Outcome(reward, terminated, self.over.copy())

    def random_actions(self, generator: np.random.Generator) -> Float[np.ndarray, "B A"]:
        return np.stack([self.world.random_action(generator) for _ in self.over])

    def _rewards(self) -> Float[np.ndarray, " B"]:
        if self.goal is not None:
            assert isinstance(self.world, GoalBatch)
            return -self.world.distance(self.goal)
        return self.world.states()[:, self.world.state_names.index(REWARD)]

    def _terminated(self) -> Bool[np.ndarray, " B"]:
        if TERMINATED not in self.world.state_names:
            return np.zeros(len(self.over), dtype=bool)
        return self.world.states()[:, self.world.state_names.index(TERMINATED)] > 0


def _goal(config: EnvironmentConfig, world: WorldBatch) -> Float[np.ndarray, "B G"] | None:
    if REWARD in world.state_names:
        if config.goal is not None:
            raise UserError(f"environment.goal: {config.world} rewards by itself and sets no goals; leave it out")
        return None
    if not isinstance(world, GoalBatch):
        raise UserError(f"{config.world} has no rewards and no goals; choose a world gym:ID, or one with tasks")
    if config.goal is None or len(config.goal) != len(world.goal_names):
        raise UserError(
            f"environment.goal: {config.world} rewards the way to a goal; expected {len(world.goal_names)} numbers "
            f"({', '.join(world.goal_names)}), found {config.goal or 'none'}"
        )
    return np.tile(np.array(config.goal), (len(world), 1))
