"""Controllers on an RSSM's own state [h, s], which knows what the past has shown: dreams of it, and acting by it.

dream    [h, s] ─controller─> a ─RSSM─> [h', s' ~ prior] ─> …         `Belief`: such states as latents of one token
acting   image ─encoder─> z ─posterior(h)─> s ─controller─> a         `BeliefPolicy`: h follows from s and a
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from jepa.agents.controller import Actor
from jepa.agents.observations import as_action, as_images
from jepa.predictors.base import check_no_states
from jepa.predictors.rssm import RSSM, RecurrentState, draw, point
from jepa.world_model import Deterministic, LatentWorldModel, State


class Belief:
    """Dynamics whose latents are the private states of an RSSM, [B, 1, F]; noise is read by its first G numbers.

    What is drawn is drawn in `step`, so the next latent that it returns is the only one.
    """

    context: int | None = None
    state_size: int = 0

    def __init__(self, rssm: RSSM) -> None:
        self.rssm = rssm

    def initial_state(
        self,
        z: Float[Tensor, "B S 1 F"],
        actions: Float[Tensor, "B S-1 A"],
        states: Tensor | None = None,
    ) -> RecurrentState:
        """The last latent. Raises ValueError if there are states."""
        check_no_states(self.rssm, states)
        h, s = z[:, -1, 0].split((self.rssm.config.recurrent_size, z.shape[-1] - self.rssm.config.recurrent_size), -1)
        return RecurrentState(h, s.unflatten(-1, (self.rssm.config.categoricals, -1)))

    def step(
        self,
        state: State,
        action: Float[Tensor, "B A"],
        noise: Float[Tensor, "B 1 F"] | None = None,
        temperature: float = 1.0,
    ) -> tuple[RecurrentState, Deterministic]:
        assert isinstance(state, RecurrentState)
        h = self.rssm.advance(state.h, state.s, self.rssm.embedded_action(action))
        logits = self.rssm.prior(h)
        if noise is None:
            s = point(logits, self.rssm.config.point)
        else:
            s = draw(logits / temperature, torch.special.ndtr(noise[:, 0, : logits.shape[-2]]))
        return RecurrentState(h, s), Deterministic(self.rssm.features(h, s)[:, None])


class BeliefPolicy:
    """Acts in one environment (images [h, w, 3]) or in B at once (images [B, h, w, 3]).

    Args:
        model: its dynamics are an RSSM, and a latent step is a frame.
        actor: reads the state [h, s].

    Attributes:
        generator: explores: draws states and decisions; None: the most likely state and the mean decision.
    """

    def __init__(self, model: LatentWorldModel, actor: Actor) -> None:
        assert isinstance(model.dynamics, RSSM) and model.spec.frames_per_step == 1
        self.model = model
        self.rssm = model.dynamics
        self.actor = actor
        self.reset()

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Start a new episode: forget what was seen."""
        self.generator = generator
        self._state: RecurrentState | None = None
        self._action: Tensor | None = None

    @torch.no_grad()
    def act(self, observation: Any) -> Float32[np.ndarray, "*B A"]:
        """The action for an observation."""
        z = self.model.encode_image(as_images(observation)).float()
        self._state = self._corrected(z)
        features = self.rssm.features(self._state.h, self._state.s)[:, None]
        decision = self.actor(features, features)
        decided = decision.mean if self.generator is None else decision.sample(self.generator)
        self._action = self.actor.space.block(decided)
        return as_action(self._action.float().cpu(), observation)

    def _corrected(self, z: Float[Tensor, "B N D"]) -> RecurrentState:
        """The state after one more latent."""
        c = self.rssm.config
        if self._state is None or self._action is None:
            h = z.new_zeros(len(z), c.recurrent_size)
            s = z.new_zeros(len(z), c.categoricals, c.classes)
            action = z.new_zeros(len(z), self.rssm.action_size)
        else:
            h, s = self._state.h, self._state.s
            action = self.rssm.embedded_action(self._action)
        h = self.rssm.advance(h, s, action)
        logits = self.rssm.posterior(h, z)
        if self.generator is None:
            return RecurrentState(h, point(logits, c.point))
        numbers = torch.rand(logits.shape[:-1], generator=self.generator).to(logits.device)
        return RecurrentState(h, draw(logits, numbers))
