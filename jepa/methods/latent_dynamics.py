"""Any predictor over the latents of a frozen encoder: what compares dynamics in one and the same latent space.

    video ──→ frozen encoder ──→ z [B, S, N, D] ──┐
    actions of the step ──────────────────────────┴─→ predictor ──→ its own loss over true latents

    loss  = the predictor's (`Predictor.loss`)        mean squared error of one step for mlp, gru and causal; negative
                                                      log density for mdn_rnn; emission error and KL for rssm
          + mean (p - z)² over `rollout_steps` steps  of its own predictions, after a random number of true latents

The encoder gets no gradient, and the targets are constant. Predictors that take one vector need an encoder with one
vector a step. Predictors of points that are trained one step ahead can leave the space of latents in long rollouts.
States are those of `dino_wm`.

Forward FLOPs of a step on clips of S steps: the encoder on all frames, and the predictor over S-1 and `rollout_steps`
steps.
"""

from typing import Annotated, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from jepa.config import DEFAULT, part
from jepa.encoders.module import Encoder
from jepa.methods.base import Batch, ClipShape, Method, MethodConfig, block_size, history
from jepa.methods.frozen_encoder import RolloutSteps
from jepa.predictors import PREDICTORS, reading_patches
from jepa.predictors.base import Predictor, PredictorConfig, token_grid
from jepa.world_model import rollout


class LatentDynamics(Method):
    """A frozen encoder and a predictor of any kind over its latents.

    Args:
        encoder: video -> [B, S, N, D]; it is frozen here.

    Raises:
        ValueError: the predictor is for other latents, or for states; or clips hold one latent only.
    """

    class Config(MethodConfig):
        """Any predictor on a frozen encoder, trained by its own loss."""

        collapses = False
        kind: Literal["latent_dynamics"] = "latent_dynamics"
        encoder_from: str | None = Field(
            default=None, description="run, model folder or hub id of the encoder; none: `encoder`"
        )
        latents_from: str | None = Field(
            default=None, description="folder of the encoder's latents (jepa data tokenize), read in place of video"
        )
        predictor: Annotated[PredictorConfig, part(PREDICTORS, "mlp")] = DEFAULT
        rollout_steps: RolloutSteps = 0

        def latents_source(self) -> str | None:
            return self.latents_from

        def encoder_source(self) -> str | None:
            return self.encoder_from

    needs_actions = True
    frozen = ("encoder",)
    dynamics: Predictor

    def __init__(self, config: Config, encoder: Encoder, clips: ClipShape) -> None:
        super().__init__(config, encoder.eval().requires_grad_(False))
        self.dynamics = PREDICTORS.make(
            config.predictor, encoder.width, block_size(encoder, clips), token_grid(encoder)
        )
        if encoder.tokens != 1 and not self.dynamics.reads_patches:
            raise ValueError(
                f"method.predictor {config.predictor.kind} takes one vector a step, the encoder gives {encoder.tokens} "
                f"tokens: choose {reading_patches()}, or an encoder with output: pooled"
            )
        if self.dynamics.state_size:
            raise ValueError("latent_dynamics gives its predictor latents and actions alone: omit state_size")
        if config.rollout_steps and self.dynamics.distribution:
            raise ValueError(
                f"method.rollout_steps is for predictors of points, found {config.predictor.kind}, which predicts a "
                "distribution; omit it"
            )
        minimum = (1 + max(1, config.rollout_steps)) * encoder.tubelet
        if clips.frames < minimum:
            raise ValueError(
                f"data.clip_frames is {clips.frames}; expected {minimum} or more: a latent, and the next or "
                "a rollout (method.rollout_steps)"
            )
        self.history = history(self.dynamics, encoder, clips)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss, the predictor's terms, and the cosine of prediction and target.

        Raises:
            ValueError: the clips have no actions.
        """
        actions = self.actions_of(batch)
        z = self.frozen_latents(batch)
        prediction = self.dynamics.loss(z, actions, generator)
        cosine = F.cosine_similarity(prediction.predicted.detach().float(), z[:, 1:], dim=-1).mean()
        terms = dict(prediction.terms)
        loss = terms["prediction"]
        if self.config.rollout_steps:
            terms["rollout"] = self.rollout_error(z, actions, generator)
            loss = loss + terms["rollout"]
        return {"loss": loss, **{name: value.detach() for name, value in terms.items()}, "cosine": cosine}

    def rollout_error(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S-1 A"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Mean squared error of `rollout_steps` latents, each predicted from those before it."""
        steps = self.config.rollout_steps
        true = int(torch.randint(1, z.shape[1] - steps + 1, (), generator=generator))
        state = self.dynamics.initial_state(z[:, :true], actions[:, : true - 1])
        rolled = rollout(self.dynamics, state, actions[:, None, true - 1 : true - 1 + steps])[:, 0]
        return self.dynamics.squared_error(rolled, z[:, true - 1 : true + steps]).terms["prediction"]

    def train(self, mode: bool = True) -> Self:
        """The encoder stays in evaluation mode, whatever the mode of the rest."""
        super().train(mode)
        self.encoder.eval()
        return self
