"""Collapse metrics of latents. Each costs one small SVD or eigenvalue problem."""

import torch
from jaxtyping import Float
from torch import Tensor

MIN_WITHIN = 1e-4  # LiDAR's delta


@torch.no_grad()
def effective_rank(z: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
    """RankMe (arXiv 2210.02885): exp of the entropy of the normalized singular values, from 1 to min(n, D).

    1 means that all latents are multiples of one vector. The latents are not centered: otherwise a constant with
    rounding noise would have full rank.
    """
    singular = torch.linalg.svdvals(z.float())
    share = singular / singular.sum().clamp_min(torch.finfo(singular.dtype).tiny)
    return torch.special.entr(share).sum().exp()


@torch.no_grad()
def dimension_std(z: Float[Tensor, "n D"]) -> Float[Tensor, " D"]:
    """Standard deviation of each dimension over the n latents; 0 where all are equal."""
    return z.float().std(0, correction=0)


@torch.no_grad()
def lidar(z: Float[Tensor, "n q D"]) -> Float[Tensor, ""]:
    """LiDAR (arXiv 2312.04000): number of directions in which n samples differ more than the q views of each sample.

    exp of the entropy of the normalized eigenvalues of W^-1/2 B W^-1/2, from 1 to min(n - 1, D): B is the covariance of
    the samples' means, W that of the views around them, plus 1e-4 of the identity. Computed in float64 from n*q
    rows, for any D.

    Unlike in the paper, eigenvalues are not normalized if their sum is below 1: rounding noise, which spreads over
    all directions, would have full rank.

    Raises:
        ValueError: there are fewer than two samples or two views.
    """
    samples, views, _ = z.shape
    if samples < 2 or views < 2:
        raise ValueError(f"LiDAR compares views of samples: at least 2 of each, found {samples} samples, {views} views")
    z = z.double()
    means = z.mean(1)
    between = (means - means.mean(0)) / (samples - 1) ** 0.5  # B = between' between
    within = (z - means[:, None]).flatten(0, 1) / (samples * (views - 1)) ** 0.5  # W = within' within + LEAST * 1
    # The eigenvalues of W^-1/2 B W^-1/2 are those of between W^-1 between', and W is inverted by Woodbury's identity.
    inner = within @ within.T + MIN_WITHIN * torch.eye(len(within), dtype=z.dtype, device=z.device)
    across = within @ between.T
    signal = (between @ between.T - across.T @ torch.linalg.solve(inner, across)) / MIN_WITHIN
    eigenvalues = torch.linalg.eigvalsh(signal).clamp_min(0)
    return torch.special.entr(eigenvalues / eigenvalues.sum().clamp_min(1.0)).sum().exp()
