"""DreamerV3's convolutional encoder (arXiv 2301.04104): the last feature map, flattened, is the latent.

    frame, 64 px -> [conv 5x5 -> maxima of 2x2 -> RMSNorm over channels -> SiLU] for each of `channels` -> 4x4 map -> D

Published: channels (2, 3, 4, 4) * 64 for 64 px in the 200M model, so D = 4 * 4 * 256. In the smaller ones the 64 is
less (12M: 16, 50M: 32). With `halve: stride` the convolutions have a stride of 2 in place of the maxima, at a quarter
of the cost.
"""

from itertools import pairwise
from typing import Annotated, Literal

from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from jepa.config.fields import Count
from jepa.encoders.base import EncoderConfig
from jepa.encoders.conv import stack_tubelets
from jepa.encoders.module import Encoder

KERNEL = 5
NORM_EPS = 1e-4


class DreamerConv(Encoder):
    """Video [B, T, 3, h, w] -> latents [B, T/tubelet, 1, D].

    Args:
        image_size: height and width in pixels, a multiple of 2 ** len(channels).
        frames: of the clips; any multiple of the tubelet.

    Raises:
        ValueError: the image cannot be halved so often.
    """

    tokens = 1

    class Config(EncoderConfig):
        """One vector per latent step, as in DreamerV3: the last feature map."""

        kind: Literal["dreamer_conv"] = "dreamer_conv"
        tubelet: Count = Field(default=1, description="frames per latent step, stacked as channels")
        channels: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
            default=(32, 48, 64, 64), description="of each layer; each layer halves the image"
        )
        halve: Literal["max", "stride"] = Field(
            default="max", description="maxima of 2x2 as published; or convolutions of stride 2, a quarter of the cost"
        )

    def __init__(self, config: Config, image_size: int, frames: int) -> None:
        super().__init__()
        self.config = config
        side, rest = divmod(image_size, 2 ** len(config.channels))
        if rest:
            raise ValueError(f"image_size is {image_size}; {len(config.channels)} layers halve it, each evenly")
        self.image_size = image_size
        self.tubelet = config.tubelet
        self.width = config.channels[-1] * side * side
        sizes = (3 * self.tubelet, *config.channels)
        self.layers = nn.Sequential(*(_Layer(*pair, config.halve) for pair in pairwise(sizes)))

    def forward(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S 1 D"]:
        """Raises ValueError if T is no multiple of the tubelet or the images have another size."""
        return rearrange(self._maps(video), "(b s) e y x -> b s 1 (y x e)", b=video.shape[0])

    def feature_map(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S hh ww E"]:
        """The last feature map, for visualization."""
        return rearrange(self._maps(video), "(b s) e y x -> b s y x e", b=video.shape[0])

    def _maps(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "M E y x"]:
        return self.layers(stack_tubelets(video, self.tubelet, self.image_size))


class _Layer(nn.Module):
    def __init__(self, inputs: int, outputs: int, halve: Literal["max", "stride"]) -> None:
        super().__init__()
        stride = 2 if halve == "stride" else 1
        self.conv = nn.Conv2d(inputs, outputs, KERNEL, stride=stride, padding=KERNEL // 2)
        self.pool = nn.MaxPool2d(2) if halve == "max" else nn.Identity()
        self.norm = nn.RMSNorm(outputs, NORM_EPS)

    def forward(self, x: Float[Tensor, "M C h w"]) -> Float[Tensor, "M E y x"]:
        x = rearrange(self.pool(self.conv(x)), "m e y x -> m y x e")
        return nn.functional.silu(rearrange(self.norm(x), "m y x e -> m e y x"))
