"""A policy that records data: a world's own expert goes from one goal to the next, with noise."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jepa_data.worlds.base import GoalBatch

GOALS = 64  # more than fit into any recording; afterwards the first comes again
ChooseGoals = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def noisy_expert(
    world: GoalBatch,
    choose: ChooseGoals,
    width: int,
    generators: list[np.random.Generator],
    frames: int,
    *,
    near: float,
    noise: float,
) -> NDArray[np.float32]:
    """Actions [E, frames-1, A] of the expert, in -1..1.

    Args:
        world: a copy of the episodes, which is played.
        choose: makes goals [E, G], as seen from where `world` is, of numbers [E, width] drawn evenly from 0..1.
        generators: one for each episode.
        near: a goal is left for the next at a distance below it.
        noise: standard deviation of what is added to every action.
    """
    units, added = [], []
    for rng in generators:
        units.append(rng.uniform(size=(GOALS, width)))
        added.append(rng.normal(0, noise, (frames - 1, world.action_size)))
    unit = np.stack(units)
    addition = np.stack(added)
    number = np.zeros(len(world), dtype=np.intp)
    rows = np.arange(len(world))
    goal = choose(unit[:, 0])
    actions = np.zeros((len(world), frames - 1, world.action_size), np.float32)
    for t in range(frames - 1):
        there = world.distance(goal) < near
        if there.any():
            number[there] = (number[there] + 1) % GOALS
            goal[there] = choose(unit[rows, number])[there]
        actions[:, t] = (world.expert(goal).clip(-1, 1) + addition[:, t]).clip(-1, 1)
        world.step(actions[:, t])
    return actions
