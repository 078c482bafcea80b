"""Returns of held-out episodes: always the same ones, never collected from."""

from collections.abc import Callable
from typing import Self

import numpy as np
from jaxtyping import Float

from jepa.config.result import Part
from jepa.online.config import OnlineConfig
from jepa.online.environment import Environment
from jepa_data.worlds.base import GoalBatch

HELD_OUT = 2**30  # number of the first of these episodes
Z95 = 1.96
Act = Callable[[Environment], Float[np.ndarray, "B A"]]


class Evaluation(Part):
    """The mean return with its 95 % interval, after `step` environment steps."""

    step: int
    mean_return: float
    low: float
    high: float
    episodes: int

    @classmethod
    def of(cls, step: int, returns: Float[np.ndarray, " B"]) -> Self:
        """From the return of each episode; the interval is that of a normal mean."""
        mean = float(returns.mean())
        half = float(Z95 * returns.std(ddof=1) / len(returns) ** 0.5)
        return cls(step=step, mean_return=mean, low=mean - half, high=mean + half, episodes=len(returns))


def play(config: OnlineConfig, act: Act) -> Float[np.ndarray, " B"]:
    """The return of each episode, all played side by side."""
    environment = Environment(config.environment, HELD_OUT + np.arange(config.evaluation_episodes))
    returns = np.zeros(config.evaluation_episodes)
    while not environment.over.all():
        returns += environment.step(act(environment)).reward
    return returns


def random_actions(seed: int) -> Act:
    """A new action for every decision."""
    generator = np.random.default_rng(seed)
    return lambda environment: environment.random_actions(generator)


def expert(config: OnlineConfig) -> Act | None:
    """The script that reads true states; None if the world has none."""
    world = Environment(config.environment, np.arange(1)).world
    if not isinstance(world, GoalBatch) or not world.has_expert:
        return None

    def act(environment: Environment) -> Float[np.ndarray, "B A"]:
        assert isinstance(environment.world, GoalBatch) and environment.goal is not None
        return environment.world.expert(environment.goal)

    return act
