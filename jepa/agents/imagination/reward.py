"""Rewards of dreams: `reward(z [B, N, D], goal [B, N, D]) -> [B]`, from latents only.

Distance()                      minus the latent distance to the goal
Within(Distance(), near, 1.0)   the same, with a bonus where the distance is below `near`
Head(module)                    a learned reward, independent of the goal
lambda z, goal: …               anything else
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

Latents = Float[Tensor, "B N D"]
Reward = Callable[[Latents, Latents], Float[Tensor, " B"]]


@dataclass(frozen=True)
class Distance:
    """Minus the distance between latents: the mean squared difference (as in the planners' cost), or its root.

    Attributes:
        measure: the gradient of the root is as large near the goal as far from it.
        read: maps latents to what is compared, such as decoded positions: [B, N, D] -> [B, X].
    """

    measure: Literal["squared", "root"] = "squared"
    read: Callable[[Latents], Float[Tensor, "B X"]] | None = None

    def __call__(self, z: Latents, goal: Latents) -> Float[Tensor, " B"]:
        apart = z - goal if self.read is None else self.read(z) - self.read(goal)
        squared = apart.flatten(1).square().mean(-1)
        if self.measure == "squared":
            return -squared
        return -(squared + 1e-8).sqrt() + 1e-4  # 1e-8: the root has no slope at 0


@dataclass(frozen=True)
class Within:
    """Adds `bonus` to a `distance` at every step that is nearer to the goal than `near`, in units of `distance`.

    The bonus has no gradient: learners with gradients through the dynamics only see the distance.
    """

    distance: Distance
    near: float
    bonus: float = 1.0

    def __post_init__(self) -> None:
        if self.near <= 0:
            raise ValueError(f"`near` of a bonus must lie above 0, found {self.near:g}")

    def __call__(self, z: Latents, goal: Latents) -> Float[Tensor, " B"]:
        distance = self.distance(z, goal)
        return distance + self.bonus * (-distance < self.near).to(distance.dtype)


@dataclass(frozen=True)
class Head:
    """A reward predicted by a module from the latent, [B, N, D] -> [B], independent of the goal."""

    module: nn.Module

    def __call__(self, z: Latents, goal: Latents) -> Float[Tensor, " B"]:
        return self.module(z)
