"""Tubelets to tokens: a linear map of tubelet x patch x patch pixels, applied only to the kept patches."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def patchify(
    video: Float[Tensor, "B T C h w"], tubelet: int, patch: int, keep: Int[Tensor, "B M"] | None = None
) -> Float[Tensor, "B M P"]:
    """The pixels of each tubelet, C * tubelet * patch * patch of them, channel by channel.

    `keep`: flat token indices (step, row, column); None: all.
    """
    batch, frames, channels, height, width = video.shape
    rows, columns = height // patch, width // patch
    patches = video.reshape(batch, frames // tubelet, tubelet, channels, rows, patch, columns, patch)
    patches = patches.permute(0, 1, 4, 6, 3, 2, 5, 7)  # a view [B, S, h', w', C, tubelet, patch, patch]
    if keep is None:
        return patches.flatten(1, 3).flatten(2)
    clip = torch.arange(batch, device=keep.device)[:, None]
    cell = keep % (rows * columns)
    return patches[clip, keep // (rows * columns), cell // columns, cell % columns].flatten(2)


class PatchEmbed(nn.Module):
    """A linear map of each tubelet. It stores Conv3d weights, as published, but is applied only to the kept patches."""

    def __init__(self, tubelet: int, patch: int, channels: int, width: int):
        super().__init__()
        size = (tubelet, patch, patch)
        self.proj = nn.Conv3d(channels, width, size, size)

    def forward(self, video: Float[Tensor, "B T C h w"], keep: Int[Tensor, "B M"] | None) -> Float[Tensor, "B M D"]:
        """`keep`: flat token indices (step, row, column); None embeds all."""
        tubelet, patch, _ = self.proj.kernel_size
        return F.linear(patchify(video, tubelet, patch, keep), self.proj.weight.flatten(1), self.proj.bias)
