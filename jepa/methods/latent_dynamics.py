"""Any predictor over the latents of a frozen encoder: what compares dynamics in one and the same latent space.

    video ──→ frozen encoder ──→ z [B, S, N, D] ──┐
    actions of the step ──────────────────────────┴─→ predictor ──→ its own loss over true latents

    loss  = the predictor's (`Predictor.loss`)        mean squared error of one step for mlp, gru and causal; negative
                                                      log density for mdn_rnn; emission error and KL for rssm

The encoder gets no gradient, and the targets are constant. Predictors that take one vector need an encoder with one
vector a step. Rollouts in training and states are those of `dino_wm`.

Forward FLOPs of a step on clips of S steps: the encoder on all frames, and the predictor over S-1 steps.
"""

from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from jepa.config import DEFAULT, part
from jepa.encoders.module import Encoder
from jepa.methods.base import Batch, ClipShape, Method, MethodConfig, block_size, history
from jepa.predictors import PREDICTORS, reading_patches
from jepa.predictors.base import Predictor, PredictorConfig, token_grid


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
        if clips.frames < 2 * encoder.tubelet:
            raise ValueError(
                f"data.clip_frames is {clips.frames}; expected {2 * encoder.tubelet} or more: a latent, and the next"
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
        terms = {name: value.detach() for name, value in prediction.terms.items()}
        return {"loss": prediction.terms["prediction"], **terms, "cosine": cosine}

    def train(self, mode: bool = True) -> Self:
        """The encoder stays in evaluation mode, whatever the mode of the rest."""
        super().train(mode)
        self.encoder.eval()
        return self
