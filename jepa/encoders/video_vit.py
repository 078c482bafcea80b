"""Video vision transformer: tubelets in, tokens out, without computing dropped tokens.

    video [B, T, C, h, w]  →  patches of tubelet x patch x patch pixels  →  [B, S, N, D],  S = T / tubelet
    token s*N + i*w' + j  is step s, row i, column j;  N = h' w' = (h / patch) (w / patch)

V-JEPA (arXiv 2404.08471) and V-JEPA 2 (arXiv 2506.09985) use bidirectional attention and no CLS token; LeVJEPA
(arXiv 2608.27395) reads a CLS token and attends block-causally:

    reads →        cls  step 0  step 1  step 2          each step reads itself and the past,
    cls             x     x       x       x             CLS reads everything,
    step 0                x                             no patch reads CLS
    step 1                x       x
    step 2                x       x       x

Positions are rotary (jepa/transformer.py has both kinds), or V-JEPA 1's sines and cosines added to the tokens.

Forward FLOPs for M tokens: M * (2*D*C*tubelet*patch² + depth * (8*D² + 4*D²*mlp_ratio + 4*M*D)).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from jepa.transformer import NORM_EPS, Block, Grid, Rotary, grid_positions, initialise, rotary_table, sincos_table

Positions = Rotary | Literal["sincos"]


@dataclass(frozen=True)
class Size:
    """Width, depth, heads and the hidden width of the MLPs over the width."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0


SIZES = {  # V-JEPA 1, 2 and 2.1
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
    "huge": Size(1280, 32, 16),
    "giant": Size(1408, 40, 22, 48 / 11),
    "gigantic": Size(1664, 48, 26, 64 / 13),
}


@dataclass(frozen=True)
class Features:
    """What the encoder knows of a clip: its tokens in the order of `keep` (else all), and CLS if it has one."""

    tokens: Float[Tensor, "B M D"]
    cls: Float[Tensor, "B D"] | None


class PatchEmbed(nn.Module):
    """A linear map of each tubelet. Kept as Conv3d weights, as published, but applied to the wanted patches only."""

    def __init__(self, tubelet: int, patch: int, channels: int, width: int):
        super().__init__()
        size = (tubelet, patch, patch)
        self.proj = nn.Conv3d(channels, width, size, size)

    def forward(self, video: Float[Tensor, "B T C h w"], keep: Int[Tensor, "B M"] | None) -> Float[Tensor, "B M D"]:
        tubelet, patch, _ = self.proj.kernel_size
        batch, frames, channels, height, width = video.shape
        rows, columns = height // patch, width // patch
        patches = video.reshape(batch, frames // tubelet, tubelet, channels, rows, patch, columns, patch)
        patches = patches.permute(0, 1, 4, 6, 3, 2, 5, 7)  # a view [B, S, h', w', C, tubelet, patch, patch]
        if keep is None:
            patches = patches.flatten(1, 3)
        else:
            which, step, cell = torch.arange(batch, device=keep.device)[:, None], *_divmod(keep, rows * columns)
            patches = patches[which, step, *_divmod(cell, columns)]
        return F.linear(patches.flatten(2), self.proj.weight.flatten(1), self.proj.bias)


class VideoViT(nn.Module):
    """Vision transformer over tubelets.

    Attributes: tubelet, patch, width, image_size, frames; tokens, N at `image_size`. Clips of another length or size,
    square or not, are fine as long as tubelet and patch divide them: positions are relative.

    Args:
        frames: length of the clips it is trained on.
        mlp_ratio: hidden width of the MLPs over `width`.
        cls_token: prepend a learned token that summarises the clip (see `forward_features`).
        attention: who may read whom (figure above).
        positions: how a token knows where it stands. "rotary" is V-JEPA 2.1's; "rotary_tiled" and "sincos" are for the
            published weights of V-JEPA 2 and 1.
    """

    def __init__(
        self,
        image_size: int,
        patch: int,
        tubelet: int,
        width: int,
        depth: int,
        heads: int,
        frames: int,
        mlp_ratio: float = 4.0,
        *,
        channels: int = 3,
        cls_token: bool = False,
        attention: Literal["bidirectional", "block_causal"] = "bidirectional",
        positions: Positions = "rotary",
    ):
        super().__init__()
        self.image_size, self.patch, self.tubelet, self.frames = image_size, patch, tubelet, frames
        self.width, self.heads, self.attention = width, heads, attention
        self.positions: Positions = positions
        self.patch_embed = PatchEmbed(tubelet, patch, channels, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02)) if cls_token else None
        self.blocks = nn.ModuleList([Block(width, heads, mlp_ratio) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, NORM_EPS)
        _, rows, columns = self._grid(frames, image_size, image_size)
        self.tokens = rows * columns
        initialise(self, list(self.blocks))  # pyright: ignore[reportArgumentType] - ModuleList forgets its type

    def forward(
        self, video: Float[Tensor, "B T C h w"], keep: Int[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B S N D"] | Float[Tensor, "B M D"]:
        """Normalised video to tokens.

        Without `keep`: all tokens, `[B, S, N, D]`. With it: only these flat token indices are computed and read by
        one another, `[B, M, D]` in the order of `keep`.
        """
        tokens = self.forward_features(video, keep).tokens
        return tokens if keep is not None else tokens.unflatten(1, (video.shape[1] // self.tubelet, -1))

    def forward_features(self, video: Float[Tensor, "B T C h w"], keep: Int[Tensor, "B M"] | None = None) -> Features:
        """Normalised video to tokens and CLS."""
        grid = self.grid(video)
        x = self.patch_embed(video, keep)
        if keep is None:
            keep = torch.arange(x.shape[1], device=x.device)[None]  # one row serves the batch
        positions = grid_positions(keep, grid)
        mask = None if self.attention == "bidirectional" else self._block_causal(positions[..., 0])
        if self.positions == "sincos":
            x = x + sincos_table(positions, self.width).to(x.dtype)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(x), -1, -1).to(x.dtype), x), 1)
            positions = F.pad(positions, (0, 0, 1, 0))
        head_dim = self.width // self.heads
        rotary = None if self.positions == "sincos" else rotary_table(positions, head_dim, self.positions)
        for block in self.blocks:
            x = block(x, rotary, mask)
        x = self.norm(x)
        return Features(x, None) if self.cls_token is None else Features(x[:, 1:], x[:, 0])

    def grid(self, video: Float[Tensor, "B T C h w"]) -> Grid:
        """Steps, rows and columns of the tokens of `video`; ValueError if tubelet or patch do not divide it."""
        return self._grid(video.shape[1], *video.shape[-2:])

    def _grid(self, frames: int, height: int, width: int) -> Grid:
        if frames % self.tubelet or not frames:
            raise ValueError(f"{frames} frames do not divide into tubelets of {self.tubelet}")
        if height % self.patch or width % self.patch or not height or not width:
            raise ValueError(f"frames of {height}x{width} pixels do not divide into patches of {self.patch}")
        return frames // self.tubelet, height // self.patch, width // self.patch

    def _block_causal(self, time: Float[Tensor, "B M"]) -> Bool[Tensor, "B 1 L L"]:
        """True where the row may read the column; CLS, if there is one, is row and column 0."""
        mask = time[:, :, None] >= time[:, None, :]
        if self.cls_token is not None:
            mask = F.pad(F.pad(mask, (1, 0), value=False), (0, 0, 1, 0), value=True)
        return mask[:, None]


def _divmod(index: Int[Tensor, "B M"], size: int) -> tuple[Int[Tensor, "B M"], Int[Tensor, "B M"]]:
    return index // size, index % size
