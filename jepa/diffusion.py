"""Gaussian diffusion over 1000 noise levels: noising, two samplers and the loss of learned variances.

    x_t = √ā_t x0 + √(1-ā_t) ε        t = 0 … 999: hardly any noise … nothing else; ā_t = Π (1 - β), β from 1e-4 to .02

    DDIM         x_s = √ā_s x0' + √(1-ā_s) ε'     s < t; x0' is the network's estimate, ε' the noise that it implies
    ancestral    x_s ~ Normal(m(x0', x_t), v)     m: mean of q(x_s | x_t, x0'); log v: between that of q and that of β,
                                                  at a share that the network learns ("learned range")

Level -1 is the end, without noise. Samplers may skip levels: β is then that of the whole jump.

Sources: DDPM (2006.11239), DDIM (2010.02502), Improved DDPM (2102.09672).
"""

import math
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEVELS = 1000  # DDPM
FIRST_BETA, LAST_BETA = 1e-4, 0.02
MIN_VARIANCE = 1e-20  # before its logarithm is taken


@cache
def _signals(device: torch.device) -> Float[Tensor, "1001"]:
    """ā from level -1, where it is 1, to the last."""
    kept = 1 - torch.linspace(FIRST_BETA, LAST_BETA, LEVELS, dtype=torch.float64)
    return torch.cat((torch.ones(1, dtype=torch.float64), kept.cumprod(0))).float().to(device)


def signal(t: Int[Tensor, " B"], x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """ā of each row's level, to multiply `x` with."""
    return _signals(x.device)[t + 1].view(-1, *(1 for _ in x.shape[1:]))


def noised(x0: Float[Tensor, "B ..."], t: Int[Tensor, " B"], noise: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    kept = signal(t, x0)
    return kept.sqrt() * x0 + (1 - kept).sqrt() * noise


def denoised(x: Float[Tensor, "B ..."], t: Int[Tensor, " B"], noise: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """x0, if this is the noise in x."""
    kept = signal(t, x)
    return (x - (1 - kept).sqrt() * noise) / kept.sqrt()


def trailing_levels(count: int) -> list[int]:
    """`count` levels in equal jumps from the last one, for DDIM; after the last of them comes -1."""
    return [round(LEVELS * (1 - i / count)) - 1 for i in range(count)]


def spread_levels(count: int) -> list[int]:
    """`count` levels from the last to the first, both included, for ancestral sampling; after them comes -1."""
    return torch.linspace(LEVELS - 1, 0, count, dtype=torch.float64).round().int().tolist()


def ddim_step(
    x: Float[Tensor, "B ..."], x0: Float[Tensor, "B ..."], t: Int[Tensor, " B"], s: Int[Tensor, " B"]
) -> Float[Tensor, "B ..."]:
    """From level t to s, where x0 is the estimate."""
    kept = signal(t, x)
    noise = (x - kept.sqrt() * x0) / (1 - kept).sqrt()
    return noised(x0, s, noise)


def posterior(
    x: Float[Tensor, "B ..."], x0: Float[Tensor, "B ..."], t: Int[Tensor, " B"], s: Int[Tensor, " B"]
) -> tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]:
    """Mean and variance of q(x_s | x_t, x0); the variance is 0 at the end."""
    at, before = signal(t, x), signal(s, x)
    beta = 1 - at / before
    mean = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x) / (1 - at)
    return mean, (1 - before) / (1 - at) * beta


def log_variance(share: Float[Tensor, "B ..."], t: Int[Tensor, " B"], s: Int[Tensor, " B"]) -> Float[Tensor, "B ..."]:
    """Of the step from t to s: from the posterior's (`share` -1) to that of β (1)."""
    at, before = signal(t, share), signal(s, share)
    beta = 1 - at / before
    low = ((1 - before) / (1 - at) * beta).clamp_min(MIN_VARIANCE).log()
    part = (share + 1) / 2
    return part * beta.log() + (1 - part) * low


def ancestral_step(
    x: Float[Tensor, "B ..."],
    x0: Float[Tensor, "B ..."],
    share: Float[Tensor, "B ..."],
    t: Int[Tensor, " B"],
    s: Int[Tensor, " B"],
) -> tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]:
    """Mean and deviation of x_s, given the estimate x0; at level -1 there is no deviation."""
    mean, _ = posterior(x, x0, t, s)
    return mean, (0.5 * log_variance(share, t, s)).exp() * (s >= 0).view(-1, *(1 for _ in x.shape[1:]))


def variational_bound(
    x: Float[Tensor, "B ..."],
    x0: Float[Tensor, "B ..."],
    estimate: Float[Tensor, "B ..."],
    share: Float[Tensor, "B ..."],
    t: Int[Tensor, " B"],
) -> Float[Tensor, ""]:
    """KL of the true step from t to t-1 and the network's, in bits a number; it trains `share` alone.

    At level 0 it is the negative log density of x0.
    """
    s = t - 1
    true_mean, true_variance = posterior(x, x0, t, s)
    mean, _ = posterior(x, estimate.detach(), t, s)
    learned = log_variance(share, t.clamp_min(1), s.clamp_min(0))  # level 0 takes the variance of level 1
    low = true_variance.clamp_min(MIN_VARIANCE).log()
    apart = (true_mean - mean).square()
    kl = 0.5 * (learned - low + (low - learned).exp() - 1 + apart * (-learned).exp())
    density = 0.5 * (math.log(2 * math.pi) + learned + (x0 - mean).square() * (-learned).exp())
    at_end = (s < 0).view(-1, *(1 for _ in x.shape[1:]))
    return torch.where(at_end, density, kl).mean() / math.log(2)
