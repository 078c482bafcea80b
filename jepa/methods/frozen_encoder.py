"""What methods share that learn dynamics in the latents of an encoder that stays as it is (V-JEPA 2-AC, DINO-WM).

video ──→ frozen encoder ──→ z [B, S, N, D]          no gradient, evaluation mode, the same weights to the last bit
                             x = z, or z and states  [B, S, N, D + X] where the predictor predicts states too
loss  = teacher forcing at every step + a rollout from its own predictions      jepa/objectives/causal_prediction.py
"""

from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.methods.base import Batch
from jepa.objectives.causal_prediction import Distance, Predict, forced_and_rolled
from jepa.predictors.causal import CausalPredictor
from jepa.world_model import block_actions


class FrozenEncoderMethod(nn.Module):
    """A frozen encoder and a causal predictor over its latents.

    Args:
        encoder: video -> [B, S, N, D], each latent from its own frames alone; it is frozen here.
        dynamics: the predictor that is trained.
        distance: of predictions to what was seen.
        rollout_steps: of the loss's second term; 0 leaves it out.
        rollout_context: true latents that a rollout starts from; "random": drawn for every batch.
        detach_rollout: no gradient through what a prediction of the rollout is made from.

    Attributes:
        frozen: parts that never change, so that checkpoints of the training need not hold them.

    Raises:
        ValueError: the predictor is for other latents.
    """

    frozen = ("encoder",)

    def __init__(
        self,
        encoder: nn.Module,
        dynamics: CausalPredictor,
        *,
        distance: Distance,
        rollout_steps: int,
        rollout_context: int | Literal["random"],
        detach_rollout: bool,
    ) -> None:
        super().__init__()
        expected, found = (encoder.tokens, encoder.width), (dynamics.tokens, dynamics.width)
        if expected != found:
            raise ValueError(f"the predictor is for {list(found)} numbers a frame, the encoder gives {list(expected)}")
        if dynamics.camera_size:
            raise ValueError(
                "cameras' poses are not in the clips: the predictor takes none in training (camera_size 0)"
            )
        self.encoder = encoder.eval().requires_grad_(False)
        self.dynamics = dynamics
        self.distance: Distance = distance
        self.rollout_steps, self.context, self.detach = rollout_steps, rollout_context, detach_rollout

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss, its terms, and the cosine of prediction and target.

        Raises:
            ValueError: the clips have no actions, not the predictor's states, or are shorter than a rollout.
        """
        x, predict = self.sequence(batch)
        terms, forced = forced_and_rolled(
            predict,
            x,
            distance=self.distance,
            rollout_steps=self.rollout_steps,
            context=self._context(x.shape[1], generator),
            detach=self.detach,
        )
        cosine = F.cosine_similarity(forced.detach().float(), x[:, 1:], dim=-1).mean()
        return {"loss": sum(terms.values(), x.new_zeros(())), **terms, "cosine": cosine}

    def _context(self, steps: int, generator: torch.Generator) -> int:
        """True latents before a rollout of `rollout_steps` that ends within the clip."""
        if isinstance(self.context, int):
            return self.context
        most = steps - self.rollout_steps
        return 1 if most < 2 else int(torch.randint(1, most + 1, (), generator=generator))

    def train(self, mode: bool = True) -> Self:
        """The encoder stays in evaluation mode, whatever the mode of the rest."""
        super().train(mode)
        self.encoder.eval()
        return self

    def sequence(self, batch: Batch) -> tuple[Float[Tensor, "B S N E"], Predict]:
        """The latents x of the clips, and the predictor as a function of them; it knows actions and states by itself.

        Raises:
            ValueError: the clips have no actions, or not the states that the predictor takes.
        """
        if batch.actions is None:
            raise ValueError(
                f"{type(self).__name__} learns from actions, and these clips have none; use vjepa or levjepa for plain "
                "video"
            )
        with torch.no_grad():
            z = self.encoder(batch.video).float()
        per_step = batch.video.shape[1] // z.shape[1]
        actions, states = block_actions(batch.actions, per_step), None
        if (found := 0 if batch.states is None else batch.states.shape[-1]) != self.dynamics.state_size:
            raise ValueError(f"the predictor takes states {self.dynamics.state_size} wide, the clips have {found}")
        if batch.states is not None and self.dynamics.state_size:
            states = batch.states[:, per_step - 1 :: per_step]  # at the last frame of each step
        if states is None or not self.dynamics.predicts_states:
            return z, lambda seen: self.dynamics(seen, *_first(seen.shape[1], actions, states))
        told = self.dynamics.scale_states(states)[:, :, None].expand(-1, -1, z.shape[2], -1)
        return torch.cat((z, told), -1), lambda seen: self._predict_both(seen, actions)

    def _predict_both(
        self, seen: Float[Tensor, "B S N E"], actions: Float[Tensor, "B Q A"]
    ) -> Float[Tensor, "B S N E"]:
        """Latents and states of the next step: every patch tells both, and what they say of a state is averaged."""
        z, told = seen.split((self.dynamics.width, self.dynamics.state_size), -1)
        states = self.dynamics.scale_states.inverse(told.mean(2))
        return torch.cat(self.dynamics.joint(z, *_first(seen.shape[1], actions, states)), -1)  # pyright: ignore[reportArgumentType, reportCallIssue] - it predicts both

    def after_step(self, step: int, total_steps: int) -> None:
        """Nothing follows."""

    def evaluation_encoder(self) -> nn.Module:
        return self.encoder


def _first(steps: int, actions: Tensor, states: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What belongs to the first so many latents."""
    return actions[:, :steps], None if states is None else states[:, :steps]
