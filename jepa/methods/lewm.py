"""LeWM: encoder and dynamics trained jointly, end to end, without a teacher (arXiv 2603.19312).

    z_s   = encoder(frames of step s)                                        [B, S, 1, D]
    p_0   = z_0,   p_{s+1} = predictor(p_s, a_s)                             open loop over the whole clip
    or             p_{s+1} = predictor(z_0 … z_s, a_0 … a_s)                 teacher-forced: every step at once
    loss  = mean |p_s - z_s|²                                                latent prediction
          + w_sig  mean over s of SIGReg(z_s)                                keeps z Gaussian: no collapse
          + w_inv  |inverse(z_s, z_{s+1}) - a_s|²                            inverse dynamics
          + w_sim  mean |z_{s+1} - z_s|²                                     time-similarity

Dynamics can leave the last dimensions of a latent unchanged (`static`), for constants of a scene such as walls. Then

    z = [ moving | static ]            loss of the moving part, as above,
          + w_static  mean |z_{s+1} - z_s|²  of the static part              constant in a clip

and SIGReg on both. Without a static part, a small latent trained with inverse dynamics loses what never changes.

The paper has the first two terms, with weight .09, and a teacher-forced causal transformer. The last two terms and the
open-loop rollout are from EB-JEPA and PLDM. With them, a small model can plan after minutes on a CPU (without inverse
dynamics, EB-JEPA reports 1 %).

Forward FLOPs of a step: the encoder on all frames, S-1 steps of the dynamics, inverse dynamics on S-1 pairs, and for
SIGReg 2*S*D*directions a clip.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from jepa.config import DEFAULT, part
from jepa.config.fields import Count
from jepa.encoders.module import Encoder
from jepa.methods.base import Batch, ClipShape, MethodConfig, VectorDynamicsMethod, history
from jepa.objectives.inverse_dynamics import InverseDynamics
from jepa.objectives.sigreg import sigreg
from jepa.predictors import PREDICTORS
from jepa.predictors.base import PredictorConfig


class LeWM(VectorDynamicsMethod):
    """Latent prediction with actions for vector latents (N = 1)."""

    class Config(MethodConfig):
        """Latent prediction with actions, SIGReg, inverse dynamics and time-similarity (LeWM)."""

        kind: Literal["lewm"] = "lewm"
        predictor: Annotated[PredictorConfig, part(PREDICTORS, "mlp")] = DEFAULT
        sigreg_weight: float = Field(default=0.02, ge=0)
        inverse_weight: float = Field(default=1.0, ge=0)
        similarity_weight: float = Field(default=0.5, ge=0)
        static_weight: float = Field(default=10.0, ge=0, description="weight of the time-similarity of the static part")
        directions: Count = Field(default=256, description="random projections of SIGReg, drawn again each step")
        sigreg_samples: Literal["per_step", "pooled"] = Field(
            default="per_step",
            description="per_step: SIGReg of each latent step's embeddings, averaged over the steps, as published; "
            "pooled: of all steps together, a value up to as many times larger as a clip has steps",
        )
        teacher_forced: bool = Field(
            default=False, description="predict from the true latents; otherwise from predictions"
        )

    def __init__(self, config: Config, encoder: Encoder, clips: ClipShape) -> None:
        super().__init__(config, encoder, clips)
        self.static = self.dynamics.static
        self.inverse_dynamics = InverseDynamics(encoder.width - self.static, self.dynamics.action_size)
        if config.teacher_forced:
            self.history = history(self.dynamics, encoder, clips)
        self.weights = {
            "sigreg": config.sigreg_weight,
            "inverse_dynamics": config.inverse_weight,
            "similarity": config.similarity_weight,
        }
        if self.static:
            self.weights["static"] = config.static_weight

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss, its terms, and the cosine of prediction and target.

        Raises:
            ValueError: the clips have no actions.
        """
        actions = self.actions_of(batch)
        z = self.encoder(batch.video)
        if self.config.teacher_forced or self.dynamics.distribution:
            prediction = self.dynamics.loss(z, actions, generator)
        else:
            prediction = self.dynamics.squared_error(self.open_loop(z, actions), z)
        samples = z.flatten(0, 2) if self.config.sigreg_samples == "pooled" else z.flatten(2).transpose(0, 1)
        moving, static = z.split((z.shape[-1] - self.static, self.static), -1)
        terms = {
            **prediction.terms,
            "sigreg": sigreg(samples, generator, directions=self.config.directions),
            "inverse_dynamics": self.inverse_dynamics(moving, self.dynamics.scale_actions(actions)),
            "similarity": F.mse_loss(moving[:, 1:], moving[:, :-1]),
        }
        if self.static:
            terms["static"] = F.mse_loss(static[:, 1:], static[:, :-1])
        return self.weighted_sum(terms, prediction.predicted, z)
