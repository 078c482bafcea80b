"""The convolutional encoder of IMPALA (arXiv 1802.01561), as in EB-JEPA and PLDM for Two Rooms.

    frame, 65 px -> 3 stacks of [conv 3x3 -> max pool, stride 2 -> 2 residual blocks], 16, 32 and 32 channels
                 -> 9x9 map -> ReLU -> linear -> D -> LayerNorm

The LayerNorm has no scale and shift here, so that dynamics end in the same one without sharing weights (`gru` with
`layer_norm_out`). Published: 65 px, a channel for the dot and one for the wall, D 512, 1.43 M parameters.
"""

from itertools import pairwise
from typing import Annotated, Literal

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from jepa.config.fields import Count
from jepa.encoders.base import EncoderConfig
from jepa.encoders.conv import stack_tubelets
from jepa.encoders.module import Encoder


class ImpalaEncoder(Encoder):
    """Video [B, T, 3, h, w] -> latents [B, T/tubelet, 1, width].

    Args:
        image_size: height and width in pixels.
        frames: of the clips; any multiple of the tubelet.
    """

    tokens = 1

    class Config(EncoderConfig):
        """One vector per latent step, as in EB-JEPA and PLDM."""

        kind: Literal["impala"] = "impala"
        width: Count = Field(default=512, description="D, size of the latent vector")
        tubelet: Count = Field(default=1, description="frames per latent step, stacked as channels")
        channels: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
            default=(16, 32, 32), description="channels of each stack; each stack halves the image"
        )
        blocks: Count = Field(default=2, description="residual blocks of each stack")

    def __init__(self, config: Config, image_size: int, frames: int) -> None:
        super().__init__()
        self.config = config
        self.image_size = image_size
        self.width = config.width
        self.tubelet = config.tubelet
        sizes = (3 * self.tubelet, *config.channels)
        self.stacks = nn.Sequential(*(_Stack(*pair, config.blocks) for pair in pairwise(sizes)))
        side = image_size
        for _ in config.channels:
            side = (side + 1) // 2
        self.head = nn.Linear(config.channels[-1] * side * side, self.width)

    def forward(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S 1 D"]:
        """Raises ValueError if T is no multiple of the tubelet or the images have another size."""
        maps = F.relu(self._maps(video))
        z = F.layer_norm(self.head(maps.flatten(1)), (self.width,))
        return rearrange(z, "(b s) d -> b s 1 d", b=video.shape[0])

    def feature_map(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S hh ww E"]:
        """The last feature map, for visualization."""
        return rearrange(self._maps(video), "(b s) e y x -> b s y x e", b=video.shape[0])

    def _maps(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "M E y x"]:
        return self.stacks(stack_tubelets(video, self.tubelet, self.image_size))


class _Stack(nn.Module):
    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(outputs, outputs, 3, padding=1) for _ in range(2)) for _ in range(blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.enter(x), 3, 2, 1)
        for first, second in self.blocks:  # pyright: ignore[reportGeneralTypeIssues] - ModuleList forgets its type
            x = F.relu(x + second(F.relu(first(x))))
        return x
