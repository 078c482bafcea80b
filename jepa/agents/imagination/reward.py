"""What a dream is worth, step by step: `reward(z [B, N, D], goal [B, N, D]) -> [B]`, read from latents alone.

Distance()                      minus the latent distance to the goal
Within(Distance(), near, 1.0)   the same, and a bonus wherever it is nearer than `near`
Head(module)                    what a module reads from z, whatever the goal: a learned reward
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
    """Minus the distance between latents: their mean squared difference (the planners' cost), or the root of it.

    Attributes:
        measure: the root is as steep near the goal as far from it.
        read: what is compared instead of the latents, such as a head that reads positions: [B, N, D] -> [B, X].
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
    """`bonus` at every step that ends nearer to the goal than `near`, added to a `distance`, in whose units it is.

    The bonus has no gradient: learners that follow the dynamics backwards see the distance alone.
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
    """A reward that a module reads from the latent: [B, N, D] -> [B]. The goal plays no part."""

    module: nn.Module

    def __call__(self, z: Latents, goal: Latents) -> Float[Tensor, " B"]:
        return self.module(z)
