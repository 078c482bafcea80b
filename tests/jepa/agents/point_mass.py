"""A toy world to dream of: a point that is pushed, in torch and once more in numpy."""

import numpy as np
import torch
from torch import Tensor

from jepa.agents.controller import ActionSpace
from jepa.agents.imagination.actor_critic import ActorCritic
from jepa.agents.imagination.dream import Dream, Recorded
from jepa.agents.imagination.reward import Distance
from jepa.predictors.base import LatentState
from jepa.world_model import Deterministic


class PointMass:
    """Exact dynamics of a toy world: position and velocity [x, y, vx, vy]; an action pushes, friction brakes."""

    context = 1
    state_size = 0

    def initial_state(self, z: Tensor, actions: Tensor, states: Tensor | None = None) -> LatentState:
        return LatentState(z[:, -1])

    def step(
        self, state: LatentState, action: Tensor, noise: Tensor | None = None, temperature: float = 1.0
    ) -> tuple[LatentState, Deterministic]:
        position, velocity = state.z[:, 0].split(2, -1)
        velocity = 0.5 * velocity + 0.2 * action
        z = torch.cat([position + velocity, velocity], -1)[:, None]
        return LatentState(z), Deterministic(z)


def push(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The same world once more, in numpy."""
    velocity = 0.5 * state[:, 2:] + 0.2 * np.clip(action, -1, 1)
    return np.concatenate([state[:, :2] + velocity, velocity], 1)


PLACE = Distance(read=lambda z: z[:, 0, :2])
DREAM = Dream(PointMass(), 2, PLACE, temperature=None)
SPACE = ActionSpace(2)
SMALL = ActorCritic.Config(updates=3, batch=16, horizon=4, hidden=16)


def recorded(count: int = 200) -> Recorded:
    """Points anywhere in a square of two around 0, slowly moving."""
    z = torch.rand(count, 1, 1, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Recorded(z * torch.tensor([1, 1, 0.2, 0.2]), [str(i) for i in range(count)])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
