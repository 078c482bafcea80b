"""PLDM: latent dynamics with VICReg instead of SIGReg (arXiv 2502.14819), as in EB-JEPA (2602.03604).

    z_s   = encoder(frames of step s)                                        [B, S, 1, D]
    p_0   = z_0,   p_{s+1} = predictor(p_s, a_s)                             open loop over the whole clip
    loss  = mean |p_s - z_s|²                                                latent prediction
          + w_std  variance(z)       over the clips of a batch               every dimension varies
          + w_cov  covariance(z)     over the clips of a batch               dimensions are uncorrelated
          + w_time variance(z)       over the steps of a clip                latents vary over time
          + w_sim  mean |z_{s+1} - z_s|²                                     time-similarity
          + w_inv  |inverse(z_s, z_{s+1}) - a_s|²                            inverse dynamics

The default weights are EB-JEPA's for Two Rooms; PLDM's own are 3, 6.92, .245, .742 and 1.07 in this order. EB-JEPA's
other variant, with SIGReg instead of the first two, is `lewm`. With a batch-normalized encoder output, the variance
term is 0.

Forward FLOPs of a step: the encoder on all frames, S-1 steps of the dynamics, inverse dynamics on S-1 pairs, and
2*S*D² a clip for the covariance.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from jepa.config import DEFAULT, part
from jepa.encoders.module import Encoder
from jepa.methods.base import Batch, ClipShape, MethodConfig, VectorDynamicsMethod
from jepa.objectives.inverse_dynamics import InverseDynamics
from jepa.objectives.vicreg import covariance, variance, variance_within
from jepa.predictors import PREDICTORS
from jepa.predictors.base import PredictionLoss, PredictorConfig


class PLDM(VectorDynamicsMethod):
    """Latent prediction with actions for vector latents (N = 1)."""

    class Config(MethodConfig):
        """Latent prediction with actions, VICReg, time-similarity and inverse dynamics (PLDM)."""

        kind: Literal["pldm"] = "pldm"
        predictor: Annotated[PredictorConfig, part(PREDICTORS, "mlp")] = DEFAULT
        variance_weight: float = Field(default=16.0, ge=0)
        covariance_weight: float = Field(default=8.0, ge=0)
        time_variance_weight: float = Field(default=0.0, ge=0)
        similarity_weight: float = Field(default=12.0, ge=0)
        inverse_weight: float = Field(default=1.0, ge=0)

    def __init__(self, config: Config, encoder: Encoder, clips: ClipShape) -> None:
        super().__init__(config, encoder, clips)
        self.inverse_dynamics = InverseDynamics(encoder.width, self.dynamics.action_size)
        self.weights = {
            "variance": config.variance_weight,
            "covariance": config.covariance_weight,
            "time_variance": config.time_variance_weight,
            "similarity": config.similarity_weight,
            "inverse_dynamics": config.inverse_weight,
        }

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss, its terms, and the cosine of prediction and target. Random is only what the predictor draws.

        Raises:
            ValueError: the clips have no actions, or there is only one.
        """
        actions = self.actions_of(batch)
        z = self.encoder(batch.video)
        if self.dynamics.distribution:
            prediction = self.dynamics.loss(z, actions, generator)
        else:
            predicted = self.open_loop(z, actions)
            prediction = PredictionLoss({"prediction": F.mse_loss(predicted, z[:, 1:])}, predicted)
        clips = z[:, :, 0]  # [B, S, D]
        steps = clips.transpose(0, 1)
        terms = {
            **prediction.terms,
            "variance": variance(steps),
            "covariance": covariance(steps),
            "time_variance": variance_within(clips),
            "similarity": F.mse_loss(z[:, 1:], z[:, :-1]),
            "inverse_dynamics": self.inverse_dynamics(z, self.dynamics.scale_actions(actions)),
        }
        return self.weighted_sum(terms, prediction.predicted, z)
