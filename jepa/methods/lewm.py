"""LeWM: an encoder and its dynamics learned together, end to end, without a teacher (arXiv 2603.19312).

    z_s   = encoder(frames of step s)                                        [B, S, 1, D]
    p_0   = z_0,   p_{s+1} = predictor(p_s, a_s)                             open loop over the whole clip
    or             p_{s+1} = predictor(z_0 … z_s, a_0 … a_s)                 teacher-forced: every step at once
    loss  = mean |p_s - z_s|²                                                latent prediction
          + w_sig  mean over s of SIGReg(z_s)                                keeps z Gaussian: no collapse
          + w_inv  |inverse(z_s, z_{s+1}) - a_s|²                            inverse dynamics
          + w_sim  mean |z_{s+1} - z_s|²                                     time-similarity

Dynamics may keep the last numbers of a latent as they are (`static`): what a scene is, such as where walls are. Then

    z = [ what moves | static ]        loss of what moves, as above,
          + w_static  mean |z_{s+1} - z_s|²  of the static part              it is the same throughout a clip

and SIGReg over both. Left to itself, a small latent that is to tell actions forgets what never changes.

The paper has the first two terms, weight .09, and a teacher-forced causal transformer; the last two and the open-loop
rollout come from EB-JEPA and PLDM, and are what lets a small model plan after minutes on a CPU (without inverse
dynamics EB-JEPA reports 1 %).

Forward FLOPs of a step: the encoder on all frames, S-1 steps of the dynamics, inverse dynamics on S-1 pairs, and for
SIGReg 2*S*D*directions a clip.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.methods.base import Batch, weighted_sum
from jepa.objectives.inverse_dynamics import InverseDynamics
from jepa.objectives.sigreg import sigreg
from jepa.predictors.causal import CausalPredictor
from jepa.predictors.gru import GRUPredictor
from jepa.predictors.mlp import MLPPredictor
from jepa.world_model import block_actions, rollout


class LeWM(nn.Module):
    """Latent prediction with actions for vector latents (N = 1).

    Args:
        encoder: video -> [B, S, 1, D].
        dynamics: over those latents.
        inverse_dynamics: predicts the action between what moves in two latents, standardized as the dynamics read it.
        sigreg_weight, inverse_weight, similarity_weight, static_weight: the w of the module's docstring.
        directions: random projections of SIGReg, drawn anew each step.
        sigreg_samples: what SIGReg takes for one sample of embeddings: those of a latent step, averaged over the steps,
            as published (per_step); or those of all steps of the batch (pooled), a value up to S times as large.
        teacher_forced: predict each step from the true latents before it; else open loop, from what was predicted.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dynamics: MLPPredictor | GRUPredictor | CausalPredictor,
        inverse_dynamics: InverseDynamics,
        *,
        sigreg_weight: float = 0.02,
        inverse_weight: float = 1.0,
        similarity_weight: float = 0.5,
        static_weight: float = 10.0,
        directions: int = 256,
        sigreg_samples: Literal["per_step", "pooled"] = "per_step",
        teacher_forced: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.dynamics, self.inverse_dynamics = encoder, dynamics, inverse_dynamics
        self.weights = {"sigreg": sigreg_weight, "inverse_dynamics": inverse_weight, "similarity": similarity_weight}
        self.static = dynamics.static if isinstance(dynamics, MLPPredictor) else 0
        if self.static:
            self.weights["static"] = static_weight
        self.directions, self.sigreg_samples, self.teacher_forced = directions, sigreg_samples, teacher_forced

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss, its terms, and the cosine of prediction and target.

        Raises:
            ValueError: the clips have no actions.
        """
        if batch.actions is None:
            raise ValueError(
                "LeWM learns from actions, and these clips have none; use vjepa or levjepa for plain video"
            )
        z = self.encoder(batch.video)
        actions = block_actions(batch.actions, batch.video.shape[1] // z.shape[1])
        if self.teacher_forced:
            predicted = self.dynamics.parallel(z[:, :-1], actions)
        else:
            start = self.dynamics.initial_state(z[:, :1], actions[:, :0])
            predicted = rollout(self.dynamics, start, actions[:, None])[:, 0]
        samples = z.flatten(0, 2) if self.sigreg_samples == "pooled" else z.flatten(2).transpose(0, 1)
        moving, static = z.split((z.shape[-1] - self.static, self.static), -1)
        terms = {
            "prediction": F.mse_loss(predicted[..., : moving.shape[-1]], moving[:, 1:]),
            "sigreg": sigreg(samples, generator, directions=self.directions),
            "inverse_dynamics": self.inverse_dynamics(moving, self.dynamics.scale_actions(actions)),
            "similarity": F.mse_loss(moving[:, 1:], moving[:, :-1]),
        }
        if self.static:
            terms["static"] = F.mse_loss(static[:, 1:], static[:, :-1])
        return weighted_sum(terms, self.weights, predicted, z[:, 1:])

    def after_step(self, step: int, total_steps: int) -> None:
        """Nothing: there is no teacher."""

    def evaluation_encoder(self) -> nn.Module:
        return self.encoder
