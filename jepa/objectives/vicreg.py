"""VICReg's terms against collapse: variance and covariance (Bardes et al. 2022, arXiv 2105.04906).

variance     mean over dimensions of  max(0, 1 - sqrt(var(z_d) + 1e-4))      0 if every standard deviation is at least 1
covariance   sum over pairs i != j of  C_ij² / D                             0 if all dimensions are uncorrelated

The embeddings of all ranks form one sample.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jepa.ranks import joint_variance, mean_over_ranks, rank_count

EPSILON = 1e-4  # VICReg


def variance(z: Float[Tensor, "*views n D"]) -> Float[Tensor, ""]:
    """How far the standard deviations of the D dimensions over n embeddings are below 1, averaged over views.

    Raises:
        ValueError: there are fewer than two embeddings.
    """
    number = _at_least_two(z)
    if rank_count() == 1:
        return variance_within(z)
    variance, _ = joint_variance(z.float(), -2)
    return _hinge(variance.squeeze(-2) * (number / (number - 1)))


def variance_within(z: Float[Tensor, "*clips n D"]) -> Float[Tensor, ""]:
    """The same over the n embeddings of each clip, which lie on one rank.

    Raises:
        ValueError: there are fewer than two embeddings.
    """
    _check_two(z.shape[-2])
    return _hinge(z.float().var(-2))


def covariance(z: Float[Tensor, "*views n D"]) -> Float[Tensor, ""]:
    """Squared covariances of different dimensions over n embeddings, summed, over D, averaged over views.

    Raises:
        ValueError: there are fewer than two embeddings.
    """
    number = _at_least_two(z)
    with torch.autocast(z.device.type, enabled=False):  # a difference of large sums: bf16 would lose it
        centered = z.float() - mean_over_ranks(z.float().mean(-2, keepdim=True))
        matrix = mean_over_ranks(centered.mT @ centered) / ((number - 1) / rank_count())
    apart = matrix.square().sum((-2, -1)) - matrix.diagonal(dim1=-2, dim2=-1).square().sum(-1)
    return (apart / z.shape[-1]).mean()


def _hinge(variance: Float[Tensor, "*views D"]) -> Float[Tensor, ""]:
    return F.relu(1 - (variance + EPSILON).sqrt()).mean()


def _at_least_two(z: Tensor) -> int:
    """Number of embeddings, over all ranks."""
    number = z.shape[-2] * rank_count()
    _check_two(number)
    return number


def _check_two(number: int) -> None:
    if number < 2:
        raise ValueError(f"variance and covariance need at least 2 embeddings, found {number}; use more clips")
