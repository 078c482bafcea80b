"""The decoder of World Models' V (arXiv 1803.10122): a latent vector to a frame of 64 px.

    D -> linear -> 1024 -> 1x1 map -> k5 s2, 128 -> k5 s2, 64 -> k6 s2, 32 -> k6 s2, 3 -> sigmoid
                                          5             13           30          64 px

ReLU after each transposed convolution but the last, and none after the linear layer.
"""

from jaxtyping import Float
from torch import Tensor, nn

FEATURES = 1024


class VAEDecoder(nn.Module):
    """Latents [M, D] -> images [M, 3, 64, 64] in 0..1. Args: width, D."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, FEATURES)
        self.grow = nn.Sequential(
            nn.ConvTranspose2d(FEATURES, 128, 5, 2),
            nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 5, 2),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 6, 2),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 6, 2),
            nn.Sigmoid(),
        )

    def forward(self, z: Float[Tensor, "M D"]) -> Float[Tensor, "M 3 h w"]:
        return self.grow(self.enter(z)[:, :, None, None])
