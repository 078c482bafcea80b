"""The convolutional encoder of IMPALA (arXiv 1802.01561), as EB-JEPA and PLDM have it for Two Rooms.

    frame, 65 px -> 3 stacks of [conv 3x3 -> max pool, stride 2 -> 2 residual blocks], 16, 32 and 32 channels
                 -> 9x9 map -> ReLU -> linear -> D -> LayerNorm

The LayerNorm has no scale and shift here, so that dynamics end in the same one without sharing weights (`gru` with
`layer_norm_out`). Published: 65 px, a channel for the dot and one for the wall, D 512, 1.43 M parameters.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from jepa.encoders.conv import stack_tubelets


class ImpalaEncoder(nn.Module):
    """Video [B, T, 3, h, w] -> latents [B, T/tubelet, 1, width].

    Args:
        image_size: height and width in pixels.
        width: D, size of the latent vector.
        tubelet: frames per latent step, stacked as channels.
        channels: of each stack; each halves the picture.
        blocks: residual ones in each stack.
    """

    tokens = 1

    def __init__(
        self,
        image_size: int,
        width: int = 512,
        *,
        tubelet: int = 1,
        channels: Sequence[int] = (16, 32, 32),
        blocks: int = 2,
    ) -> None:
        super().__init__()
        self.image_size, self.width, self.tubelet = image_size, width, tubelet
        sizes = (3 * tubelet, *channels)
        self.stacks = nn.Sequential(*(_Stack(*pair, blocks) for pair in pairwise(sizes)))
        side = image_size
        for _ in channels:
            side = (side + 1) // 2
        self.head = nn.Linear(channels[-1] * side * side, width)

    def forward(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S 1 D"]:
        """Raises ValueError if T is no multiple of the tubelet or the pictures have another size."""
        maps = F.relu(self._maps(video))
        z = F.layer_norm(self.head(maps.flatten(1)), (self.width,))
        return rearrange(z, "(b s) d -> b s 1 d", b=video.shape[0])

    def feature_map(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S hh ww E"]:
        """The last feature map, for pictures of what the encoder looks at."""
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
