"""The decoder of World Models' V (arXiv 1803.10122): a latent vector to a frame of 64 px.

    D -> linear -> 1024 -> 1x1 map -> k5 s2, 128 -> k5 s2, 64 -> k6 s2, 32 -> k6 s2, 3 -> sigmoid
                                          5             13           30          64 px

ReLU after each transposed convolution but the last, and none after the linear layer. Method `vae` trains it.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.decoders.base import Decoder, DecoderConfig

FEATURES = 1024
IMAGE_SIZE = 64


class VAEDecoder(Decoder):
    """Latents [M, D] -> images [M, 3, 64, 64] in 0..1."""

    class Config(DecoderConfig):
        """The decoder that method `vae` trained with its encoder."""

        kind: Literal["vae"] = "vae"

    def __init__(self, config: Config, tokens: int, width: int, image_size: int) -> None:
        super().__init__(config, tokens, width, image_size)
        if tokens != 1 or image_size != IMAGE_SIZE:
            raise ValueError(f"decodes 1 token to {IMAGE_SIZE} pixels; found {tokens} tokens for {image_size} pixels")
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

    def images(self, z: Float[Tensor, "B N D"], generator: torch.Generator | None = None) -> Float[Tensor, "B 3 h w"]:
        self._check(z)
        return self(z[:, 0])

    def adopt(self, weights: Mapping[str, Tensor]) -> None:
        self.load_state_dict(weights)
