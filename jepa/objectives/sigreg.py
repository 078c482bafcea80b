"""SIGReg: embeddings that look like an isotropic Gaussian along random directions cannot collapse (LeJEPA, 2511.08544).

For each direction a (unit length) the Epps-Pulley statistic compares the empirical characteristic function of the
projections x = z·a with that of a standard normal:

    n * ∫ |mean exp(i t x) - exp(-t²/2)|² exp(-t²/2) dt,     t from -3 to 3 by the trapezoid rule

and the loss is the mean over directions. It is about 1 for a Gaussian sample of any size, and grows with n for other
distributions. So the sample matters: LeWM uses the B embeddings of a latent step, and averages over the S steps. All
B*S as one sample give up to S times the value.
"""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from jepa.ranks import mean_over_ranks, rank_count
from jepa_data.devices import sent

INTEGRATE_TO = 3.0  # LeJEPA


def sigreg(
    z: Float[Tensor, "*views n D"], generator: torch.Generator, directions: int = 1024, knots: int = 17
) -> Float[Tensor, ""]:
    """Distance of n embeddings from an isotropic Gaussian, averaged over `views` if there are any.

    The embeddings of all ranks form one sample. Every rank must have the same n, and gets the value of the joint batch;
    after averaging by DDP, the gradients are those of the joint batch. `generator` is on the CPU; rank 0's
    directions are used everywhere. Memory: views * n * directions * knots floats.
    """
    z = z.float()
    axes = sent(torch.randn(z.shape[-1], directions, generator=generator), z.device)
    if rank_count() > 1:
        dist.broadcast(axes, 0)
    with torch.autocast(z.device.type, enabled=False):  # a bf16 product would lose the phase t * x
        return _statistic(z @ (axes / axes.norm(dim=0)), knots)


def _statistic(projected: Float[Tensor, "*views n directions"], knots: int) -> Float[Tensor, ""]:
    t = torch.linspace(0, INTEGRATE_TO, knots, device=projected.device)
    phase = projected[..., None] * t  # [*views, n, directions, knots]
    averages = torch.stack((phase.cos().mean(-3), phase.sin().mean(-3)))  # real and imaginary part
    real, imaginary = mean_over_ranks(averages)
    gaussian = (-t.square() / 2).exp()
    weights = torch.full_like(t, 2 * INTEGRATE_TO / (knots - 1))  # twice: the integrand is even
    weights[[0, -1]] /= 2
    difference = (real - gaussian).square() + imaginary.square()
    return (difference @ (weights * gaussian)).mean() * projected.shape[-2] * rank_count()
