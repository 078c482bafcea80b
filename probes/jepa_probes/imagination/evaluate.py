"""Is a dream worth what the world is? A controller that learned in dreams plays held-out episodes, and dreams them.

    world   image 0 ─> z0 ─> action ─> … image k ─> zk     reward(z1, goal) … reward(zT, goal): of what was encoded
    dream            z0 ─> action ─> z1' ─> …                  reward(z1', goal) … reward(zT', goal): of what was dreamt

Both from the same starts, by the same controller, with the same reward; in a world that rewards by itself and sets no
goals, its own reward, and in dreams what a head makes of it. A dream that is worth much more than the world was
exploited: the controller found out where the model is wrong.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from jepa.agents.controller import Controller
from jepa.agents.imagination.dream import Dream
from jepa.agents.imagination.policy import ImaginationPolicy
from jepa.agents.observations import check_actions
from jepa.world_model import LatentWorldModel
from jepa_data.worlds.base import GoalBatch, WorldBatch
from jepa_data.worlds.gym import REWARD
from jepa_probes.imagination.result import DreamScore, Returns, Score
from jepa_probes.planning.baselines import expert, random_floor
from jepa_probes.planning.result import Success
from jepa_probes.planning.tasks import Z95, Play, Tasks, random_actions


def evaluate_controller(
    model: LatentWorldModel, tasks: Tasks, controller: Controller, dream: Dream, horizon: int
) -> DreamScore:
    """Play every task without planning, and dream it from the same start.

    Args:
        dream: of the model; its reward is that of both returns.
        horizon: latent steps that the controller was trained for; returns are given for these and the whole task.

    Returns:
        Success with its interval, those of others, and `returns`.
    """
    world = tasks.start(1)
    check_actions(model, world)
    policy = ImaginationPolicy(model, controller, tasks.goal_images, fps=world.fps)
    starts: list[Tensor] = []
    rewards: list[Tensor] = []
    assert policy.goal is not None
    goal = policy.goal

    def act(world: GoalBatch) -> NDArray[np.floating]:
        decided = policy.decisions
        action = policy.act(world.render())
        if policy.decisions > decided:
            assert policy.latent is not None
            if starts:
                rewards.append(dream.reward(policy.latent, goal))
            else:
                starts.append(policy.latent)
        return action

    began = time.perf_counter()
    episodes = tasks.run(act)
    seconds = time.perf_counter() - began
    others = {"random": random_floor(tasks, model.spec.frames_per_step * policy.stride)}
    if world.has_expert:
        others["expert"] = expert(tasks)
    returns: dict[str, Returns] = {}
    if rewards:
        in_world = torch.stack(rewards, 1)
        returns = _returns(dream, controller, starts[0], goal, in_world, horizon, tasks.protocol.seed)
    return DreamScore(
        **dict(Success.of(episodes.solved)),
        baselines={agent: Score(**dict(Success.of(which))) for agent, which in others.items()},
        ever_reached=float(tasks.reached(episodes.nearest).mean()),
        median_distance=float(np.median(episodes.judged)),
        unit=world.unit,
        protocol=tasks.protocol,
        seconds=seconds,
        distances=episodes.judged.tolist(),
        returns=returns,
    )


def evaluate_return(
    model: LatentWorldModel, play: Play, controller: Controller, dream: Dream, horizon: int
) -> DreamScore:
    """Play episodes of a world without goals, and dream them from the same start.

    Args:
        dream: of the model; its reward and its ends are heads that were fitted to the world's.
        horizon: latent steps that the controller was trained for; returns are given for these and the whole episode.

    Returns:
        The mean return in the world with its interval, that of random actions, and `returns`.
    """
    world = play.start()
    check_actions(model, world)
    policy = ImaginationPolicy(model, controller, fps=world.fps)
    span = model.spec.frames_per_step * policy.stride
    starts: list[Tensor] = []

    def act(world: WorldBatch) -> NDArray[np.floating]:
        action = policy.act(world.render())
        if not starts:
            assert policy.latent is not None
            starts.append(policy.latent)
        return action

    began = time.perf_counter()
    rewards, lengths = _collect(world, act, play.steps)
    seconds = time.perf_counter() - began
    floor, floor_lengths = _collect(play.start(), random_actions(play.seed, span), play.steps)
    whole = rewards[:, : play.steps // span * span]
    in_world = torch.from_numpy(whole.reshape(len(whole), -1, span).sum(-1)).float()
    return DreamScore(
        **dict(_mean_return(rewards, lengths)),
        baselines={"random": _mean_return(floor, floor_lengths)},
        protocol=play,
        seconds=seconds,
        collected_rewards=rewards.sum(1).tolist(),
        returns=_returns(dream, controller, starts[0], starts[0], in_world, horizon, play.seed),
    )


def _collect(
    world: WorldBatch, act: Callable[[WorldBatch], NDArray[np.floating]], steps: int
) -> tuple[Float[np.ndarray, "B T"], NDArray[np.intp]]:
    """The reward of each step, 0 after the end of an episode; and how many steps each lasted."""
    column = world.state_names.index(REWARD)
    rewards = np.zeros((len(world), steps))
    lengths = np.zeros(len(world), np.intp)
    for t in range(steps):
        going = ~world.terminated()
        if not going.any():
            break
        world.step(act(world))
        rewards[going, t] = world.states()[going, column]
        lengths += going
    return rewards, lengths


def _mean_return(rewards: Float[np.ndarray, "B T"], lengths: NDArray[np.intp]) -> Score:
    """Mean return with its 95 % interval (of a normal mean), the number of episodes and their mean length in steps."""
    totals = rewards.sum(1)
    mean = float(totals.mean())
    half = float(Z95 * totals.std(ddof=1) / np.sqrt(len(totals)))
    return Score(
        mean_return=mean, low=mean - half, high=mean + half, episodes=len(totals), length=float(lengths.mean())
    )


@torch.no_grad()
def _returns(
    dream: Dream,
    controller: Controller,
    start: Float[Tensor, "B N D"],
    goal: Float[Tensor, "B N D"],
    in_world: Float[Tensor, "B T"],
    horizon: int,
    seed: int,
) -> dict[str, Returns]:
    """`horizon` and `task` -> what the first latent steps, and all, were worth in the dream and in the world."""
    steps = in_world.shape[1]
    in_dream = dream.run(controller.act, start, goal, steps, torch.Generator().manual_seed(seed)).expected_rewards
    return {
        name: compare_returns(in_dream[:, :count], in_world[:, :count])
        for name, count in (("horizon", min(horizon, steps)), ("task", steps))
        if count
    }


def compare_returns(dream: Float[Tensor, "B T"], world: Float[Tensor, "B T"]) -> Returns:
    """Rewards of T steps added up, in the dream and in the world: their means over tasks, how far they are apart (`gap`
    is dream - world; `apart` the mean size of the difference of one task) and Pearson's correlation over tasks, None
    where one of them is the same in all."""
    a, b = dream.double().sum(1), world.double().sum(1)
    spread = a.std(correction=0) * b.std(correction=0)
    together = ((a - a.mean()) * (b - b.mean())).mean()
    return Returns(
        steps=dream.shape[1],
        dream=a.mean().item(),
        world=b.mean().item(),
        gap=(a - b).mean().item(),
        apart=(a - b).abs().mean().item(),
        correlation=(together / spread).item() if spread > 1e-12 else None,
    )
