"""A small convolutional encoder: one vector per latent step, for short runs on a CPU.

The frames of a tubelet are stacked as channels, so that a latent can encode motion. The stride of 4 in the first layer
avoids expensive full-resolution feature maps (1.5 times faster than four stride-2 layers on a CPU at 64 px).

    tubelet x 3 ch, 64 px -> k8 s4 -> k4 s2 -> k4 s2 -> 4x4 map -> 256 -> D, BatchNorm

Smaller images skip the last stride-2 layer, so that the map keeps its spatial resolution.
"""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from jepa.config.fields import Count
from jepa.encoders.base import EncoderConfig
from jepa.encoders.module import Encoder


class ConvEncoder(Encoder):
    """Video [B, T, 3, h, w] -> latents [B, T/tubelet, 1, width].

    Args:
        image_size: height and width in pixels, a multiple of 16.
        frames: of the clips; any multiple of the tubelet.

    The output is batch-normalized without scale or shift: each dimension has zero mean and unit variance over a batch,
    as SIGReg expects (LeWM, arXiv 2603.19312).
    """

    tokens = 1

    class Config(EncoderConfig):
        """One vector per latent step."""

        kind: Literal["conv"] = "conv"
        width: Count = Field(default=64, description="D, size of the latent vector")
        tubelet: Count = 2
        channels: Count = Field(default=32, description="channels of the first layer; later layers have twice as many")
        hidden: Count = Field(default=256, description="units between the last feature map and the latent")

    def __init__(self, config: Config, image_size: int, frames: int) -> None:
        super().__init__()
        self.config = config
        if image_size % 16:
            raise ValueError(f"image_size is {image_size}; the convolutional encoder needs a multiple of 16")
        self.image_size = image_size
        self.width = config.width
        self.tubelet = config.tubelet
        channels = config.channels
        deep = 2 * channels
        layers = [*_layer(3 * self.tubelet, channels, 8, 4, 2), *_layer(channels, deep, 4, 2, 1)]
        side = image_size // 8
        if image_size >= 64:
            layers += _layer(deep, deep, 4, 2, 1)
            side //= 2
        self.stem = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(deep * side**2, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, self.width),
        )
        self.norm = nn.BatchNorm1d(self.width, affine=False)

    def forward(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S 1 D"]:
        """Raises ValueError if T is no multiple of the tubelet or the images have another size."""
        batch = video.shape[0]
        return rearrange(self.norm(self.head(self._maps(video))), "(b s) d -> b s 1 d", b=batch)

    def feature_map(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S hh ww E"]:
        """The last feature map, for visualization."""
        return rearrange(self._maps(video), "(b s) e y x -> b s y x e", b=video.shape[0])

    def _maps(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "M E y x"]:
        stacked = stack_tubelets(video, self.tubelet, self.image_size)
        return self.stem(stacked.contiguous(memory_format=torch.channels_last))


def stack_tubelets(video: Float[Tensor, "B T C h w"], tubelet: int, image_size: int) -> Float[Tensor, "M C2 h w"]:
    """The frames of each tubelet as the channels of one image.

    Raises:
        ValueError: T is no multiple of the tubelet or the images have another size.
    """
    _, frames, _, height, width = video.shape
    if frames % tubelet or (height, width) != (image_size, image_size):
        raise ValueError(
            f"expected a multiple of {tubelet} frames of {image_size}x{image_size} pixels, "
            f"found {frames} of {height}x{width}"
        )
    return rearrange(video, "b (s u) c h w -> (b s) (u c) h w", u=tubelet)


def _layer(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.GroupNorm(4, outputs), nn.SiLU()
