"""Latent regression: predict latents instead of pixels. V-JEPA's L1 distance to a normalized target.

Shapes: B clips · Mc context and Mt target tokens · D width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from jepa.transformer import NORM_EPS


def normalized(target: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """Each token at zero mean and unit variance over its channels: LayerNorm without scale and shift, in fp32."""
    return F.layer_norm(target.float(), target.shape[-1:])


def standardized(target: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
    """Each channel at zero mean and unit variance over all tokens of all clips of the batch, in fp32.

    What is the same in every token, which an encoder that is nearly random consists of, drops out of the target: 0 is
    the best guess of one that knows nothing. Batches of few clips have noisy statistics; every rank has its own.
    """
    variance, mean = torch.var_mean(target.float(), (0, 1), correction=0)
    return (target.float() - mean) / (variance + NORM_EPS).sqrt()


def latent_regression(
    prediction: Float[Tensor, "*B D"], target: Float[Tensor, "*B D"], weights: Float[Tensor, "*B"] | None = None
) -> Float[Tensor, ""]:
    """Mean absolute difference, each token's times its weight; the target is constant (V-JEPA, arXiv 2404.08471)."""
    if weights is None:
        return F.l1_loss(prediction.float(), target.float().detach())
    return ((prediction.float() - target.float().detach()).abs().mean(-1) * weights).mean()


@torch.no_grad()
def distance_weights(context: Float[Tensor, "B Mc 3"], target: Float[Tensor, "B Mt 3"]) -> Float[Tensor, "B Mc"]:
    """1 / sqrt(distance) of each context token to the nearest target token, in grid units; 1 for neighbors.

    The weights of V-JEPA 2.1's dense loss: what is seen beside a hole has to be known as well as what is in it.
    Memory: B * Mc * Mt numbers.
    """
    return torch.cdist(context, target).amin(-1).rsqrt()
