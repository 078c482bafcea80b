"""From latents to quantities of the world that have names, such as positions: the units of costs and rewards.

latents [M, N, D] -> rows [M, N*D] -> standardized -> W, by ridge regression in closed form -> quantities [M, X]
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.r2 import r2_score


class LinearRead(nn.Module):
    """A linear map from latents to quantities of the world, fitted by ridge regression.

    Args:
        z: recorded latents.
        truth: what to read from them.
        ridge: penalty on the squared weights, for standardized latents and one sample.

    Raises:
        ValueError: the truth is not finite, or there are no samples.
    """

    def __init__(self, z: Float[Tensor, "M N D"], truth: Float[Tensor, "M X"], ridge: float = 1e-4) -> None:
        super().__init__()
        if not len(z) or not truth.isfinite().all():
            raise ValueError("a head is fitted to at least one latent, and to finite numbers only")
        x = z.flatten(1).double()
        y = truth.double()
        mean, std = x.mean(0), x.std(0, correction=0).clamp_min(1e-6)
        x = (x - mean) / std
        gram = x.T @ x / len(x) + ridge * torch.eye(x.shape[1], dtype=x.dtype)
        weight = torch.linalg.solve(gram, x.T @ (y - y.mean(0)) / len(x)) / std[:, None]
        self.register_buffer("weight", weight.float())
        self.register_buffer("mean", mean.float())
        self.register_buffer("bias", (y.mean(0) - (mean - mean.float()) @ weight).float())
        self.weight: Tensor
        self.mean: Tensor
        self.bias: Tensor

    def forward(self, z: Float[Tensor, "*batch N D"]) -> Float[Tensor, "*batch X"]:
        return (z.flatten(-2) - self.mean) @ self.weight + self.bias

    def explained(self, z: Float[Tensor, "M N D"], truth: Float[Tensor, "M X"]) -> Float[Tensor, " X"]:
        """R² of each quantity on other latents (see `r2_score`); NaN of one that does not vary in them."""
        return r2_score(self(z), truth)
