"""A convolutional decoder: the latents of one step -> the image of that step's last frame.

    N = 1      D -> hidden … hidden -> 8x8 map ─┐
                                                ├─ conv, pixel shuffle x2 … conv, pixel shuffle, + mean image, sigmoid
    N = g·g    tokens -> gxg map               ─┘

The mean image is there from the start, so all that is learned is what differs from it.
"""

import math
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from jepa.config.fields import Count
from jepa.decoders.base import VECTOR_GRID, Decoder, DecoderConfig

LAST_SHUFFLE = 4  # the last layer paints blocks of at most so many pixels a side (unless the rest of the way is odd)


class PixelDecoder(Decoder):
    """Latents [B, N, D] -> images [B, 3, h, w] in 0..1.

    Args:
        tokens: N; 1, or a square number of tokens in rows (as VideoViT orders them).
        width: D.
        image_size: height and width in pixels, a multiple of the token grid (of 8 for N = 1).

    Raises:
        ValueError: the tokens are no square, or the image is no multiple of their grid.
    """

    class Config(DecoderConfig):
        """A small convolutional decoder: one image for one latent."""

        kind: Literal["pixels"] = "pixels"
        channels: int = Field(default=32, gt=0, multiple_of=4, description="of the maps")
        hidden: Count = Field(default=512, description="width of the layers in front of the map, for vector latents")
        layers: Count = Field(default=2, description="how many of them")

    mean: Tensor
    std: Tensor
    base: Tensor

    def __init__(self, config: Config, tokens: int, width: int, image_size: int) -> None:
        super().__init__(config, tokens, width, image_size)
        self.grid = grid = token_side(tokens, image_size)
        channels = config.channels
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("base", torch.zeros(3, image_size, image_size))  # logits of the mean image
        entry: list[nn.Module] = []
        inputs = width
        if tokens == 1:
            for _ in range(config.layers):
                entry += [nn.Linear(inputs, config.hidden), nn.SiLU()]
                inputs = config.hidden
        self.enter = nn.Sequential(
            *entry, nn.Linear(inputs, channels * grid * grid if tokens == 1 else channels), nn.SiLU()
        )
        layers: list[nn.Module] = []
        factor = image_size // grid
        while factor > LAST_SHUFFLE and factor % 2 == 0:
            factor //= 2
            convolution = nn.Conv2d(channels, 4 * channels, 3, padding=1)
            layers += [convolution, nn.PixelShuffle(2), nn.GroupNorm(4, channels), nn.SiLU()]
        self.grow = nn.Sequential(*layers, nn.Conv2d(channels, 3 * factor**2, 3, padding=1), nn.PixelShuffle(factor))

    def forward(self, z: Float[Tensor, "B N D"]) -> Float[Tensor, "B 3 h w"]:
        """Raises ValueError for latents of another shape than it was made for."""
        self._check(z)
        x = self.enter((z - self.mean) / self.std)
        pattern = "b 1 (c y x) -> b c y x" if self.shape[0] == 1 else "b (y x) c -> b c y x"
        logits = self.grow(rearrange(x, pattern, y=self.grid, x=self.grid).contiguous()) + self.base
        return torch.sigmoid(logits)

    def images(self, z: Float[Tensor, "B N D"], generator: torch.Generator | None = None) -> Float[Tensor, "B 3 h w"]:
        return self(z)

    def prepare(self, latents: Float[Tensor, "M N D"], mean_image: Float[Tensor, "3 h w"]) -> None:
        """Standardize the latents and start from the mean image."""
        flat = latents.flatten(0, 1)
        self.mean.copy_(flat.mean(0))
        self.std.copy_(flat.std(0, correction=0).clamp_min(1e-6))
        self.base.copy_(mean_image.clamp(0.01, 0.99).logit())


def token_side(tokens: int, image_size: int) -> int:
    """Side of the map that decoding starts from. Raises ValueError if tokens and image do not fit."""
    grid = VECTOR_GRID if tokens == 1 else math.isqrt(tokens)
    if tokens < 1 or (tokens != 1 and grid * grid != tokens) or image_size % grid:
        raise ValueError(
            f"a pixel decoder needs 1 token, or a square grid of them that divides the image; "
            f"found {tokens} tokens for {image_size} pixels"
        )
    return grid
