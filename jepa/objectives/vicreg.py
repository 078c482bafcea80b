"""VICReg's terms against collapse: variance and covariance (Bardes et al. 2022, arXiv 2105.04906).

variance     mean over dimensions of  max(0, 1 - sqrt(var(z_d) + 1e-4))      0 if every standard deviation is at least 1
covariance   sum over pairs i != j of  C_ij² / D                             0 if all dimensions are uncorrelated

Each rank uses its own embeddings.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-4  # VICReg


def variance(z: Float[Tensor, "*views n D"]) -> Float[Tensor, ""]:
    """How far the standard deviations of the D dimensions over n embeddings are below 1, averaged over views.

    Raises:
        ValueError: there are fewer than two embeddings.
    """
    _at_least_two(z)
    return F.relu(1 - (z.float().var(-2) + EPSILON).sqrt()).mean()


def covariance(z: Float[Tensor, "*views n D"]) -> Float[Tensor, ""]:
    """Squared covariances of different dimensions over n embeddings, summed, over D, averaged over views.

    Raises:
        ValueError: there are fewer than two embeddings.
    """
    _at_least_two(z)
    with torch.autocast(z.device.type, enabled=False):  # a difference of large sums: bf16 would lose it
        centered = z.float() - z.float().mean(-2, keepdim=True)
        matrix = centered.mT @ centered / (z.shape[-2] - 1)
    apart = matrix.square().sum((-2, -1)) - matrix.diagonal(dim1=-2, dim2=-1).square().sum(-1)
    return (apart / z.shape[-1]).mean()


def _at_least_two(z: Tensor) -> None:
    if z.shape[-2] < 2:
        raise ValueError(f"variance and covariance need at least 2 embeddings, found {z.shape[-2]}; use more clips")
