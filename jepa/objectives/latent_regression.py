"""V-JEPA's loss: L1 distance of predicted latents to normalized targets.

Shapes: B clips · Mc context and Mt target tokens · D width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def normalized(target: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """Normalize each token to zero mean and unit variance over channels: LayerNorm without affine, in fp32."""
    return F.layer_norm(target.float(), target.shape[-1:])


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
