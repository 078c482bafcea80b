"""Dynamics that must lose: the last latent again, and a model that gets the actions of other rows."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.predictors.base import LatentState
from jepa.world_model import Deterministic, Dynamics, NextLatent, State


class Identity(nn.Module):
    """A copy of the last latent."""

    context = 1
    state_size = 0

    def initial_state(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> LatentState:
        return LatentState(z[:, -1])

    def step(
        self, state: State, action: Float[Tensor, "B A"], noise: Tensor | None = None, temperature: float = 1.0
    ) -> tuple[LatentState, Deterministic]:
        assert isinstance(state, LatentState)
        z = state.z + 0 * action.sum(-1)[:, None, None]  # planners that follow gradients need one
        return LatentState(z), Deterministic(z)


class ShuffledActions(nn.Module):
    """Dynamics that get the actions of the row half a batch away: samples of one clip all get those of one other."""

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.context = dynamics.context
        self.state_size = dynamics.state_size

    def initial_state(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> State:
        return self.dynamics.initial_state(z, actions[self._others(len(z))], states)

    def step(
        self,
        state: State,
        action: Float[Tensor, "B A"],
        noise: Float[Tensor, "B N D"] | None = None,
        temperature: float = 1.0,
    ) -> tuple[State, NextLatent]:
        return self.dynamics.step(state, action[self._others(len(action))], noise, temperature)

    def _others(self, batch: int) -> Tensor:
        return torch.arange(batch).roll(batch // 2)
