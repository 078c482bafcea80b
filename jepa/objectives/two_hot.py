"""Two-hot distributions over symexp bins: regression at any scale by cross-entropy (DreamerV3, 2301.04104).

bins   symexp(-20) … symexp(-0.16)  0  symexp(0.16) … symexp(20)         symexp(x) = sign(x) (exp|x| - 1)
x      between two bins, at the fraction f of their distance:             bin i: 1 - f    bin i+1: f

x  --encode-->  weights [.., 255]        logits [.., 255]  --decode-->  the expected bin
"""

import torch
from jaxtyping import Float
from torch import Tensor

BINS = 255  # DreamerV3
LIMIT = 20.0


def symexp_bins(count: int = BINS, limit: float = LIMIT) -> Float[Tensor, " count"]:
    """The bins, symmetric to the last bit. Raises ValueError for an even number: there would be no bin at 0."""
    if count < 3 or count % 2 == 0:
        raise ValueError(f"two-hot needs an odd number of bins, 3 at least, so that one lies at 0; found {count}")
    below = -torch.linspace(limit, 0, count // 2 + 1, dtype=torch.float64).expm1().float()
    return torch.cat([below, -below[:-1].flip(0)])


def encode(x: Float[Tensor, "*batch"], bins: Float[Tensor, " count"]) -> Float[Tensor, "*batch count"]:
    """Weights of the two bins around x, with sum 1; x is clipped to the outer bins."""
    x = x.float().clamp(bins[0], bins[-1])
    right = torch.searchsorted(bins, x.contiguous()).clamp(1, len(bins) - 1)
    left = right - 1
    share = (x - bins[left]) / (bins[right] - bins[left])
    weights = torch.zeros(*x.shape, len(bins), device=x.device)
    weights.scatter_(-1, left[..., None], (1 - share)[..., None])
    return weights.scatter_(-1, right[..., None], share[..., None])


def decode(logits: Float[Tensor, "*batch count"], bins: Float[Tensor, " count"]) -> Float[Tensor, "*batch"]:
    """The expected bin, in fp32. Bins are added in pairs around 0, so that logits of zero give exactly 0."""
    weighted = logits.float().softmax(-1) * bins
    middle = len(bins) // 2
    return (weighted[..., :middle].flip(-1) + weighted[..., middle + 1 :]).sum(-1)


def cross_entropy(
    logits: Float[Tensor, "*batch count"], target: Float[Tensor, "*batch"], bins: Float[Tensor, " count"]
) -> Float[Tensor, "*batch"]:
    """Cross-entropy to the two-hot encoding of `target`."""
    return -(encode(target, bins) * logits.float().log_softmax(-1)).sum(-1)
