"""Dynamics in a state of its own, trained by being unrolled over a whole clip, as MuZero's are (arXiv 1911.08265).

    enter    h_0 = E(z_t)                          an MLP, once a plan
    step     h_{k+1} = h_k + f(h_k, a_{t+k})       a residual MLP
    leave    z'_{t+k} = D(h_k)                     an MLP

    loss  = mean over k = 0 … S-1 of (D(h_k) - z_{t+k})²    unrolled from the first latent of a clip; no gradient
            reaches the targets

A latent may be easy to compare and hard to step in: a turn of a body moves principal components of its image along a
curve. Here the steps are taken where they are easy, errors of several steps are what is trained, and the latent is only
read out. It has no memory: it needs latents that show the whole state, or worlds that start at rest.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.config.fields import Count
from jepa.predictors.base import PredictionLoss, Predictor, PredictorConfig, TensorState, check_no_states
from jepa.world_model import Deterministic, State


@dataclass(frozen=True)
class HiddenState(TensorState):
    """A state of the predictor's own."""

    h: Float[Tensor, "B H"]


class UnrolledPredictor(Predictor):
    """The Dynamics of `jepa.world_model` with steps in a hidden state.

    Args:
        width, action_size: as in `Predictor`.
        grid: rows and columns of the tokens of a latent; all are read and predicted as one vector.
    """

    class Config(PredictorConfig):
        """Steps in a state of its own, trained over whole clips (MuZero's dynamics)."""

        kind: Literal["unrolled"] = "unrolled"
        state: Count = Field(default=384, description="numbers of the hidden state")
        hidden: Count = Field(default=384, description="width of a step's layers")
        depth: Count = Field(default=2, description="residual blocks of a step")
        enter: Count = Field(default=512, description="width of the two layers that read a latent")
        leave: Count = Field(default=256, description="width of the layer that predicts one")

    reads_patches = True

    def __init__(self, config: Config, width: int, action_size: int, grid: tuple[int, int] = (1, 1)) -> None:
        super().__init__(config, width, action_size)
        self.tokens = grid[0] * grid[1]
        size = self.tokens * width
        self.enter = nn.Sequential(*_layer(size, config.enter), *_layer(config.enter, config.enter))
        self.enter.append(nn.Linear(config.enter, config.state))
        self.norm = nn.LayerNorm(config.state)
        self.act = nn.Linear(config.state + action_size, config.hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.LayerNorm(config.hidden), nn.Linear(config.hidden, config.hidden))
            for _ in range(config.depth)
        )
        self.change = nn.Linear(config.hidden, config.state)
        self.leave = nn.Sequential(*_layer(config.state, config.leave), nn.Linear(config.leave, size))

    def advance(self, h: Float[Tensor, "*B H"], action: Float[Tensor, "*B A"]) -> Float[Tensor, "*B H"]:
        """The next hidden state."""
        self._check_actions(action)
        x = self.act(torch.cat((self.norm(h), self.scale_actions(action)), -1))
        for block in self.blocks:
            x = x + block(x)
        return h + self.change(x)

    def read(self, h: Float[Tensor, "*B H"]) -> Float[Tensor, "*B N D"]:
        """The latent of a hidden state."""
        return self.leave(h).unflatten(-1, (self.tokens, self.width))

    def loss(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S-1 A"], generator: torch.Generator
    ) -> PredictionLoss:
        """Of all latents of a clip, from the first one; `predicted` are those after it."""
        h = self.enter(z[:, 0].flatten(1))
        states = [h]
        for t in range(actions.shape[1]):
            h = self.advance(h, actions[:, t])
            states.append(h)
        predicted = self.read(torch.stack(states, 1))
        return PredictionLoss({"prediction": F.mse_loss(predicted.float(), z.detach().float())}, predicted[:, 1:])

    def parallel(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S A"], states: Float[Tensor, "B S X"] | None = None
    ) -> Float[Tensor, "B S N D"]:
        check_no_states(self, states)
        return self.read(self.advance(self.enter(z.flatten(2)), actions))

    def initial_state(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> HiddenState:
        """From the last latent; earlier ones are not used. Raises ValueError if there are states."""
        check_no_states(self, states)
        return HiddenState(self.enter(z[:, -1].flatten(1)))

    def step(
        self, state: State, action: Float[Tensor, "B A"], noise: Tensor | None = None, temperature: float = 1.0
    ) -> tuple[HiddenState, Deterministic]:
        assert isinstance(state, HiddenState)
        h = self.advance(state.h, action)
        return HiddenState(h), Deterministic(self.read(h))


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs), nn.SiLU(), nn.LayerNorm(outputs)
