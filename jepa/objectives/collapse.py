"""How collapsed are these latents? Two gauges that cost one small SVD."""

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def effective_rank(z: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
    """RankMe (arXiv 2210.02885): exp of the entropy of the normalised singular values, from 1 to min(n, D).

    1 means that all latents are multiples of one vector. The latents are not centred: a constant plus rounding noise
    would otherwise pass for full rank.
    """
    singular = torch.linalg.svdvals(z.float())
    share = singular / singular.sum().clamp_min(torch.finfo(singular.dtype).tiny)
    return torch.special.entr(share).sum().exp()


@torch.no_grad()
def dimension_std(z: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
    """Standard deviation of each dimension over the n latents, averaged over the dimensions; 0 when all are equal."""
    return z.float().std(0, correction=0).mean()
