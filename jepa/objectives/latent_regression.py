"""V-JEPA's loss: L1 distance of predicted latents to normalized targets.

Shapes: B clips · Mc context and Mt target tokens · D width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from jepa.ranks import joint_variance
from jepa.transformer import NORM_EPS


def normalized(target: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """Normalize each token to zero mean and unit variance over channels: LayerNorm without affine, in fp32."""
    return F.layer_norm(target.float(), target.shape[-1:])


def standardized(target: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
    """Each channel at zero mean and unit variance over all tokens of all clips of the batch, in fp32.

    What is the same in every token, which an encoder that is nearly random consists of, drops out of the target: 0 is
    the best guess of one that knows nothing. The batch is that of all ranks.
    """
    variance, mean = joint_variance(target.float(), (0, 1))
    return (target.float() - mean) / (variance + NORM_EPS).sqrt()


def latent_regression(
    prediction: Float[Tensor, "*B D"], target: Float[Tensor, "*B D"], weights: Float[Tensor, "*B"] | None = None
) -> Float[Tensor, ""]:
    """Mean absolute difference, weighted per token; no gradient to the target (V-JEPA, arXiv 2404.08471)."""
    if weights is None:
        return F.l1_loss(prediction.float(), target.float().detach())
    return ((prediction.float() - target.float().detach()).abs().mean(-1) * weights).mean()


@torch.no_grad()
def distance_weights(context: Float[Tensor, "B Mc 3"], target: Float[Tensor, "B Mt 3"]) -> Float[Tensor, "B Mc"]:
    """1 / sqrt(distance) of each context token to the nearest target token, in grid units; 1 for neighbors.

    The weights of V-JEPA 2.1's dense loss: visible tokens near hidden ones count most.
    Memory: B * Mc * Mt numbers.
    """
    return torch.cdist(context, target).amin(-1).rsqrt()
