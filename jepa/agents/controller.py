"""Controllers: map the latents of observation and goal to the actions of one latent step.

    z, goal ──ObservationNormalizer──> features ──Linear or Actor──> decisions ──ActionSpace──> block
            standardized          tanh, -1..1         each repeated for `action_repeat` actions [B, frames * width]
                                                      in the units of the data

`Linear` is that of World Models (Ha & Schmidhuber 2018), `Actor` the Gaussian policy of DreamerV3.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.planners.action_scaling import ActionScaling
from jepa.planners.base import within_ball
from jepa_data.actions import ActionStats

Latents = Float[Tensor, "B N D"]
Bounds = Literal["box", "ball", "choice"]
ActorInputs = Literal["goal", "latent", "memory"]
Norm = type[nn.RMSNorm] | type[nn.LayerNorm]
MIN_STD = 0.1  # DreamerV3
MAX_STD = 1.0


class Controller(Protocol):
    """A deterministic policy: latents to the action of one latent step."""

    def act(self, z: Latents, goal: Latents) -> Float[Tensor, "B E"]: ...


@dataclass(frozen=True)
class ActionSpace:
    """Maps the decisions of a controller to the block of actions of the dynamics.

    Attributes:
        width: of one action of the environment.
        frames: actions per latent step.
        action_repeat: actions for which a decision is repeated.
        bounds: box: each number of a decision is in -1..1, which covers the range of the data; ball: also a norm of at
            most 1, for worlds that clip longer actions: their recordings contain none, so the model is not reliable
            there; choice: one-hot, for worlds with discrete actions.
        actions: action statistics of the data; None: the range is -1..1.

    Raises:
        ValueError: `action_repeat` does not divide `frames`.
    """

    width: int
    frames: int = 1
    action_repeat: int = 1
    bounds: Bounds = "box"
    actions: ActionStats | None = None

    def __post_init__(self) -> None:
        if self.action_repeat < 1 or self.frames % self.action_repeat:
            raise ValueError(
                f"action_repeat must divide the {self.frames} action(s) of a latent step, found {self.action_repeat}"
            )

    @cached_property
    def scaling(self) -> ActionScaling:
        """From decisions to actions in the units of the data."""
        return ActionScaling(self.actions, self.width)

    @property
    def size(self) -> int:
        """Total width of the decisions of a latent step."""
        return self.width * self.frames // self.action_repeat

    @property
    def block_size(self) -> int:
        """E, width of the actions of the dynamics."""
        return self.width * self.frames

    def block(self, decisions: Float[Tensor, "*batch Q"]) -> Float[Tensor, "*batch E"]:
        """The block of decisions, within the bounds. Clipping to the box is straight-through: it does not change the
        gradient. A choice is the argmax, with the gradient of the softmax."""
        actions = decisions.unflatten(-1, (-1, self.width))
        if self.bounds == "choice":
            soft = actions.softmax(-1)
            actions = F.one_hot(actions.argmax(-1), self.width) + (soft - soft.detach())
        else:
            actions = actions + (actions.clamp(-1, 1) - actions).detach()
            if self.bounds == "ball":
                actions = within_ball(actions)
            actions = self.scaling.actions(actions)
        return actions.repeat_interleave(self.action_repeat, -2).flatten(-2)

    def decisions(self, blocks: Float[Tensor, "*batch E"]) -> Float[Tensor, "*batch Q"]:
        """The decisions of recorded actions: their mean over each `action_repeat`."""
        actions = blocks.unflatten(-1, (-1, self.action_repeat, self.width)).mean(-2)
        if self.bounds != "choice":
            actions = self.scaling.numbers(actions)
        return actions.flatten(-2)


class ObservationNormalizer(nn.Module):
    """The standardized inputs of a controller.

    goal: the latent, and that of the goal; latent: without it; memory: what `imagination/mdn_memory.py` makes of it.
    """

    def __init__(self, tokens: int, width: int, actor_inputs: ActorInputs = "goal") -> None:
        super().__init__()
        self.actor_inputs: ActorInputs = actor_inputs
        self.latents = 1 + (actor_inputs == "goal")
        self.size = tokens * width * self.latents
        self.register_buffer("mean", torch.zeros(tokens * width))
        self.register_buffer("std", torch.ones(tokens * width))
        self.mean: Tensor
        self.std: Tensor

    @classmethod
    def fitted(cls, z: Float[Tensor, "M N D"], actor_inputs: ActorInputs = "goal") -> Self:
        """Fit to mean and standard deviation of recorded latents; near-constant dimensions are not amplified."""
        normalizer = cls(z.shape[1], z.shape[2], actor_inputs)
        std = z.flatten(1).std(0, correction=0)
        normalizer.mean.copy_(z.flatten(1).mean(0))
        normalizer.std.copy_(std.clamp_min(0.1 * std.max().item() + 1e-6))
        return normalizer

    def forward(self, z: Latents, goal: Latents) -> Float[Tensor, "B F"]:
        return torch.cat([(x.flatten(1) - self.mean) / self.std for x in (z, goal)[: self.latents]], -1)


class Linear(nn.Module):
    """tanh of a linear map: decisions = tanh(W features + b)."""

    def __init__(self, normalizer: ObservationNormalizer, space: ActionSpace) -> None:
        super().__init__()
        self.normalizer, self.space = normalizer, space
        self.weight = nn.Parameter(torch.zeros(space.size, normalizer.size))
        self.bias = nn.Parameter(torch.zeros(space.size))

    @property
    def parameter_count(self) -> int:
        return self.weight.numel() + self.bias.numel()

    @torch.no_grad()
    def act(self, z: Latents, goal: Latents) -> Float[Tensor, "B E"]:
        parameters = torch.cat([self.weight.flatten(), self.bias])
        return self.act_all(parameters[None], z, goal)

    def act_all(self, parameters: Float[Tensor, "P W"], z: Latents, goal: Latents) -> Float[Tensor, "B E"]:
        """Act with P controllers at once: rows p*R … p*R+R-1 belong to controller p, R = B / P."""
        weight, bias = parameters.split((self.weight.numel(), self.bias.numel()), -1)
        features = self.normalizer(z, goal).unflatten(0, (len(parameters), -1))
        return self.space.block(
            torch.baddbmm(bias[:, None], features, weight.unflatten(-1, self.weight.shape).mT).tanh().flatten(0, 1)
        )

    @torch.no_grad()
    def set(self, parameters: Float[Tensor, " W"]) -> None:
        """Load these parameters."""
        self.weight.copy_(parameters[: self.weight.numel()].view_as(self.weight))
        self.bias.copy_(parameters[self.weight.numel() :])


@dataclass(frozen=True)
class Decision:
    """Independent Gaussians over the decisions."""

    mean: Float[Tensor, "B Q"]
    std: Float[Tensor, "B Q"]

    def sample(self, generator: torch.Generator) -> Float[Tensor, "B Q"]:
        """Differentiable in mean and std."""
        return self.mean + self.std * torch.randn(self.mean.shape, generator=generator).to(self.mean)

    def log_prob(self, decisions: Float[Tensor, "B Q"]) -> Float[Tensor, " B"]:
        z = (decisions - self.mean) / self.std
        return -(0.5 * z.square() + self.std.log() + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Float[Tensor, " B"]:
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


class Actor(nn.Module):
    """A network that outputs mean and standard deviation of the decisions; `act` takes the mean."""

    def __init__(
        self,
        normalizer: ObservationNormalizer,
        space: ActionSpace,
        *,
        hidden: int = 256,
        layers: int = 2,
        norm: Norm = nn.RMSNorm,
    ) -> None:
        super().__init__()
        self.normalizer, self.space = normalizer, space
        self.network = mlp(normalizer.size, hidden, layers, 2 * space.size, norm)
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        self.features = last.in_features
        with torch.no_grad():  # starts in the middle, with the widest spread
            last.weight.mul_(0.01)

    def forward(self, z: Latents, goal: Latents) -> Decision:
        return self.decided(self.network[:-1](self.normalizer(z, goal)))

    def decided(self, features: Float[Tensor, "B h"]) -> Decision:
        """The decision from the features before the last layer."""
        mean, spread = self.network[-1](features).chunk(2, -1)
        return Decision(mean.tanh(), MIN_STD + (MAX_STD - MIN_STD) * (spread + 2).sigmoid())

    @torch.no_grad()
    def act(self, z: Latents, goal: Latents) -> Float[Tensor, "B E"]:
        return self.space.block(self(z, goal).mean)


def mlp(inputs: int, hidden: int, layers: int, outputs: int, norm: Norm = nn.RMSNorm) -> nn.Sequential:
    """DreamerV3's: linear, RMSNorm (eps 1e-4), SiLU. LayerNorm is the faster one in bf16 on a CPU."""
    widths = [inputs, *[hidden] * layers]
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        parts += [nn.Linear(before, after), norm(after, eps=1e-4), nn.SiLU()]
    return nn.Sequential(*parts, nn.Linear(widths[-1], outputs))
