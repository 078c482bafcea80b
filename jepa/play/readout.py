"""Where the goal's object is, read off latents: ridge regression on rendered moments of the world.

The true place [x, y] in the image is known for each of them, so the fit needs no recordings. A quarter is held out, and
chooses the penalty.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from jepa.play.ground import TrueWorld
from jepa_data.worlds.base import GoalBatch, WorldBatch, episode_generator

PENALTIES = (1e-6, 1e-4, 1e-2, 1.0)  # of the mean square of the latents
STEPS = 2  # latent steps by the world's own policy before a moment is taken, so that things move


@dataclass(frozen=True)
class Readout:
    """Attributes: r2, of the held-out moments, the worse of x and y."""

    weight: Float[Tensor, "F 2"]
    bias: Float[Tensor, " 2"]
    r2: float

    def __call__(self, z: Float[Tensor, "M N D"]) -> Float[Tensor, "M 2"]:
        """Places in widths of the image, y downwards."""
        return z.flatten(1).to(self.weight) @ self.weight + self.bias


def shows_goals(world: WorldBatch) -> bool:
    """Whether goals are at places in the image."""
    return isinstance(world, GoalBatch) and world.image_point(world.goal_state()) is not None


def fit_readout(ground: TrueWorld) -> Readout:
    """A fit to a world whose goals are at places in the image, after `STEPS` latent steps by its first policy."""
    world = ground.world
    generators = [episode_generator(0, episode) for episode in range(len(world))]
    actions = world.act(world.policies[0], generators, STEPS * ground.period + 1)
    for block in np.split(actions, STEPS, 1):
        ground.step(block)
    assert isinstance(world, GoalBatch)
    place = world.image_point(world.goal_state())
    assert place is not None
    x, y = ground.latent().flatten(1).double(), torch.from_numpy(place).double()
    train = len(x) - len(x) // 4
    fits = [_ridge(x[:train], y[:train], penalty) for penalty in PENALTIES]
    weight, bias = max(fits, key=lambda fit: _r2(x[train:] @ fit[0] + fit[1], y[train:]))
    return Readout(weight.float(), bias.float(), _r2(x[train:] @ weight + bias, y[train:]))


def _ridge(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """In the dual, for there may be more numbers in a latent than moments."""
    center, middle = x.mean(0), y.mean(0)
    kernel = (x - center) @ (x - center).T
    regular = penalty * kernel.diagonal().mean() + 1e-12
    weight = (x - center).T @ torch.linalg.solve(kernel + regular * torch.eye(len(x)).to(kernel), y - middle)
    return weight, middle - center @ weight


def _r2(predicted: Tensor, true: Tensor) -> float:
    spread = (true - true.mean(0)).square().mean(0).clamp_min(1e-12)
    return float((1 - (predicted - true).square().mean(0) / spread).min())
