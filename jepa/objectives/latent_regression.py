"""Latent regression: predict latents instead of pixels. V-JEPA's L1 distance to a normalised target."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def normalised(target: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """Each token at zero mean and unit variance over its channels: LayerNorm without scale and shift, in fp32."""
    return F.layer_norm(target.float(), target.shape[-1:])


def latent_regression(prediction: Float[Tensor, "*B D"], target: Float[Tensor, "*B D"]) -> Float[Tensor, ""]:
    """Mean absolute difference; the target is constant (V-JEPA, arXiv 2404.08471)."""
    return F.l1_loss(prediction.float(), target.float().detach())
