"""Is a dream worth what the world is? A controller that learned in dreams plays held-out tasks, and dreams them.

    world   picture 0 ─> z0 ─> action ─> … picture k ─> zk     reward(z1, goal) … reward(zT, goal): of what was encoded
    dream            z0 ─> action ─> z1' ─> …                  reward(z1', goal) … reward(zT', goal): of what was dreamt

Both from the same starts, by the same controller, with the same reward. A dream that is worth much more than the world
was exploited: the controller found out where the model is wrong.
"""

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from jepa.agents.controller import Controller
from jepa.agents.imagination.dream import Dream
from jepa.agents.imagination.policy import ImaginationPolicy
from jepa.world_model import LatentWorldModel
from jepa_data.worlds.base import GoalBatch
from jepa_probes.planning import random_floor, score
from jepa_probes.tasks import Pictures, Tasks


def evaluate_controller(
    model: LatentWorldModel, controller: Controller, tasks: Tasks, dream: Dream, horizon: int
) -> dict[str, Any]:
    """Play every task without planning, and dream it from the same start.

    Args:
        dream: of the model; its reward is that of both returns.
        horizon: latent steps that the controller was trained for; returns are told for these and for the whole task.

    Returns:
        JSON-able: success with its interval, others beside it, and `returns`: horizon, task -> see `compare_returns`.
    """
    protocol, world = tasks.protocol, tasks.start(1)
    policy = ImaginationPolicy(model, controller, tasks.goal_pictures, fps=world.fps)
    starts: list[Tensor] = []
    rewards: list[Tensor] = []

    def act(pictures: Pictures | None, world: GoalBatch) -> NDArray[np.floating]:
        assert pictures is not None
        decided = policy.decisions
        action = policy.act(pictures)
        if policy.decisions > decided:
            assert policy.latent is not None
            if starts:
                rewards.append(dream.reward(policy.latent, policy.goal))
            else:
                starts.append(policy.latent)
        return action

    began = time.perf_counter()
    episodes = tasks.run(act, look=True)
    seconds = time.perf_counter() - began
    solved = tasks.solved(episodes.distance)
    beside = {"random": score(random_floor(tasks, model.spec.frames_per_step * policy.stride))}
    if world.has_expert:
        beside["expert"] = score(tasks.solved(tasks.run(lambda _, world: world.expert(tasks.goal)).distance))
    result = {
        **score(solved),
        "beside": beside,
        "ever_reached": float(tasks.solved(episodes.nearest).mean()),
        "median_distance": float(np.median(episodes.distance)),
        "unit": world.unit,
        "protocol": asdict(protocol),
        "seconds": seconds,
        "distances": episodes.distance.tolist(),
        "returns": {},
    }
    if rewards:
        in_world = torch.stack(rewards, 1)
        in_dream = _dreamt(dream, controller, starts[0], policy.goal, len(rewards), protocol.seed)
        result["returns"] = {
            name: compare_returns(in_dream[:, :steps], in_world[:, :steps])
            for name, steps in (("horizon", min(horizon, len(rewards))), ("task", len(rewards)))
        }
    return result


@torch.no_grad()
def _dreamt(
    dream: Dream, controller: Controller, start: Tensor, goal: Tensor, steps: int, seed: int
) -> Float[Tensor, "B T"]:
    return dream.run(controller.act, start, goal, steps, torch.Generator().manual_seed(seed)).rewards


def compare_returns(dream: Float[Tensor, "B T"], world: Float[Tensor, "B T"]) -> dict[str, float | int | None]:
    """Rewards of T steps added up, in the dream and in the world: their means over tasks, how far they are apart (`gap`
    is dream - world; `apart` the mean size of the difference of one task) and Pearson's correlation over tasks, None
    where one of them is the same in all."""
    a, b = (x.double().sum(1) for x in (dream, world))
    spread = a.std(correction=0) * b.std(correction=0)
    together = ((a - a.mean()) * (b - b.mean())).mean()
    return {
        "steps": dream.shape[1],
        "dream": a.mean().item(),
        "world": b.mean().item(),
        "gap": (a - b).mean().item(),
        "apart": (a - b).abs().mean().item(),
        "correlation": (together / spread).item() if spread > 1e-12 else None,
    }
