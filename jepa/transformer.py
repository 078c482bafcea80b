"""Transformer blocks with 3-D rotary positions, shared by encoders and predictors.

A token sits at (t, i, j) on the latent grid. Per head, each of the three axes turns 2*((head_dim//3)//2) channels in
adjacent pairs; what is left over is not turned (V-JEPA 2, arXiv 2506.09985).

    head_dim 64:  t t t … t | i i i … i | j j j … j | - - - -      20 + 20 + 20 channels turn, 4 do not

The frequency of channel c, of the 2n of an axis:

    rotary         10000^(-(c // 2) / n)    the same for both channels of a pair, so q·k depends on the offset between
                                            two tokens only (V-JEPA 2.1, and our default)
    rotary_tiled   10000^(-(c mod n) / n)   another one for each channel of a pair: not relative, and what V-JEPA 2's
                                            published weights were trained with

The table of sines is made once a forward pass, in fp32 whatever the autocast: bf16 angles are off by up to 0.03 rad.

Shapes: B batch · L tokens · D width · P head_dim / 2, the pairs of a head · R 1, or 2 where the channels of a pair turn
by angles of their own.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Int
from timm.layers.mlp import Mlp
from torch import Tensor, nn

Grid = tuple[int, int, int]  # latent steps, rows, columns
Rotary = Literal["rotary", "rotary_tiled"]
Positions = Rotary | Literal["sincos"]
Modality = Literal["video", "image"]  # V-JEPA 2.1 marks the tokens of either
# exp(i angle) for every pair of a head; as pairs of real numbers where there are no complex ones (jepa/models/onnx.py)
RotaryTable = Complex[Tensor, "#B L R P"] | Float[Tensor, "#B L R P 2"]
AppendKV = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # keys and values, [B, heads, L, C] -> [B, heads, K, C]

ROTARY_BASE = 10_000.0  # V-JEPA 2
NORM_EPS = 1e-6  # V-JEPA 1 and 2


def grid_positions(index: Int[Tensor, "B L"], grid: Grid, position_grid: int | None = None) -> Float[Tensor, "B L 3"]:
    """(t, i, j) of flat token indices over a grid.

    With `position_grid` G, rows and columns are spread over 0 … G-1 whatever their number, as in V-JEPA 2.1 (G = 16,
    256 px in patches of 16): row i of R stands at i (G-1) / (R-1). Time is not rescaled.
    """
    _, rows, columns = grid
    time = (index // (rows * columns)).float()
    cell = index % (rows * columns)
    row, column = (cell // columns).float(), (cell % columns).float()
    if position_grid is not None:  # a single row stands at 0, whatever it is divided by
        row = row * (position_grid - 1) / max(rows - 1, 1)
        column = column * (position_grid - 1) / max(columns - 1, 1)
    return torch.stack((time, row, column), -1)


def rotary_table(
    positions: Float[Tensor, "B L 3"], head_dim: int, kind: Rotary = "rotary"
) -> Complex[Tensor, "B L R P"]:
    """exp(i angle) for every pair of a head. Position (0, 0, 0) turns nothing; a batch of one row serves all clips."""
    pairs = head_dim // 3 // 2  # of each axis
    if head_dim % 2 or not pairs:
        raise ValueError(f"rotary positions need an even head width of at least 6, found {head_dim} (width / heads)")
    channels = torch.arange(2 * pairs, device=positions.device, dtype=torch.float32)
    # [R, pairs]: one row for both channels of each pair, or a row of the even ones and a row of the odd ones
    exponent = channels[None, :pairs] if kind == "rotary" else (channels % pairs).unflatten(0, (-1, 2)).T
    angles = (positions.float()[..., None, :, None] * ROTARY_BASE ** (-exponent[:, None] / pairs)).flatten(-2)
    angles = F.pad(angles, (0, head_dim // 2 - 3 * pairs))
    return torch.polar(torch.ones_like(angles), angles)


def sincos_table(positions: Float[Tensor, "B L 3"], width: int) -> Float[Tensor, "B L D"]:
    """V-JEPA 1's fixed positions, added to the tokens: sines and cosines of each axis, 2*ceil(width/6) channels each.

    The channels of the three axes stand side by side, and what is over `width` is cut off.
    """
    half = -(-width // 6)
    frequency = ROTARY_BASE ** (-torch.arange(half, device=positions.device, dtype=torch.float64) / half)
    angles = positions.double()[..., None] * frequency
    return torch.cat((angles.sin(), angles.cos()), -1).flatten(-2)[..., :width].float()


def rotate(x: Float[Tensor, "B L *heads C"], rotary: RotaryTable) -> Float[Tensor, "B L *heads C"]:
    """Turn adjacent channel pairs of `x`, in fp32; the result has the dtype of `x`.

    A pair is one complex number: on a CPU this is ten times faster than the same sum of real products. torch.compile
    makes one loop of those, and has none for complex numbers.
    """
    if torch.compiler.is_compiling() and rotary.is_complex():
        rotary = torch.view_as_real(rotary)
    pairs = x.float().unflatten(-1, (-1, 2))
    turns = [row.view(row.shape[:2] + (1,) * (x.ndim - 3) + row.shape[2:]) for row in rotary.unbind(2)]
    if not rotary.is_complex():
        even, odd = pairs.unbind(-1)
        cos, sin = turns[0].unbind(-1)
        cos_odd, sin_odd = turns[-1].unbind(-1)
        turned = torch.stack((even * cos - odd * sin, odd * cos_odd + even * sin_odd), -1)
    elif len(turns) == 1:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * turns[0])
    else:
        pairs = torch.view_as_complex(pairs)
        turned = torch.stack(((pairs * turns[0]).real, (pairs * turns[1]).imag), -1)
    return turned.flatten(-2).to(x.dtype)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square normalization in fp32, also where autocast gives it bf16."""

    def forward(self, x: Float[Tensor, "*batch W"]) -> Float[Tensor, "*batch W"]:
        return super().forward(x.float()).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention whose queries and keys are turned by a rotary table, if there is one.

    `head_dim`: channels of a head; None: width / heads.
    """

    def __init__(self, width: int, heads: int, head_dim: int | None = None):
        super().__init__()
        if head_dim is None and width % heads:
            raise ValueError(f"width {width} does not divide into {heads} heads")
        self.heads = heads
        inner = heads * (head_dim or width // heads)
        self.qkv = nn.Linear(width, 3 * inner)
        self.proj = nn.Linear(inner, width)

    def forward(
        self, x: Float[Tensor, "B L D"], rotary: RotaryTable | None, mask: Bool[Tensor, "#B 1 L L"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """`mask` is True where a query (row) may read a key (column)."""
        query, key, value = self.project(x, rotary)
        return self.read(query, key, value, mask)

    def project(
        self, x: Float[Tensor, "B L D"], rotary: RotaryTable | None
    ) -> tuple[Float[Tensor, "B heads L C"], Float[Tensor, "B heads L C"], Float[Tensor, "B heads L C"]]:
        """Queries and keys, turned, and values."""
        # Split, not sliced: the gradient of a slice is a whole [B, L, 3, heads, C] of zeros but for the slice.
        turning, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).split((2, 1), 2)
        turned = turning if rotary is None else rotate(turning, rotary)
        query, key = turned.unbind(2)
        return query.transpose(1, 2), key.transpose(1, 2), value.squeeze(2).transpose(1, 2)

    def read(
        self,
        query: Float[Tensor, "B heads L C"],
        key: Float[Tensor, "B heads K C"],
        value: Float[Tensor, "B heads K C"],
        mask: Bool[Tensor, "#B 1 L K"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """What each query gathers from the values, mixed over heads."""
        return self.proj(F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, head_dim: int | None = None):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, NORM_EPS)
        self.attn = Attention(width, heads, head_dim)
        self.norm2 = nn.LayerNorm(width, NORM_EPS)
        self.mlp = Mlp(width, round(width * mlp_ratio))

    def forward(
        self, x: Float[Tensor, "B L D"], rotary: RotaryTable | None, mask: Bool[Tensor, "#B 1 L L"] | None = None
    ) -> Float[Tensor, "B L D"]:
        x = x + self.attn(self.norm1(x), rotary, mask)
        return x + self.mlp(self.norm2(x))

    def step(
        self,
        x: Float[Tensor, "B L D"],
        rotary: RotaryTable | None,
        append: AppendKV,
        mask: Bool[Tensor, "#B 1 L K"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """The same for tokens that follow others: `append` takes their keys and values and gives all to be read."""
        query, key, value = self.attn.project(self.norm1(x), rotary)
        x = x + self.attn.read(query, *append(key, value), mask)
        return x + self.mlp(self.norm2(x))


class AdaptiveBlock(nn.Module):
    """A block that a condition modulates (adaLN-Zero of DiT, arXiv 2212.09748): it scales and shifts what the branches
    read, and gates what they give. Gates start at 0, so a fresh block passes its tokens on as they are.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, head_dim: int | None = None):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, NORM_EPS, elementwise_affine=False)
        self.attn = Attention(width, heads, head_dim)
        self.norm2 = nn.LayerNorm(width, NORM_EPS, elementwise_affine=False)
        self.mlp = Mlp(width, round(width * mlp_ratio))
        self.modulation = nn.Linear(width, 6 * width)

    def step(
        self,
        x: Float[Tensor, "B L D"],
        rotary: RotaryTable | None,
        append: AppendKV,
        mask: Bool[Tensor, "#B 1 L K"] | None = None,
        *,
        condition: Float[Tensor, "B S D"],
    ) -> Float[Tensor, "B L D"]:
        """As `Block.step`, for L tokens of S frames, L / S a frame; `condition` is that of each frame."""
        modulation = self.modulation(F.silu(condition))
        if (tokens := x.shape[1] // condition.shape[1]) > 1:
            modulation = modulation.repeat_interleave(tokens, 1)
        scale1, shift1, gate1, scale2, shift2, gate2 = modulation.chunk(6, -1)
        query, key, value = self.attn.project(self.norm1(x) * (1 + scale1) + shift1, rotary)
        x = x + gate1 * self.attn.read(query, *append(key, value), mask)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


def compile_blocks(model: nn.Module, backend: str = "inductor") -> int:
    """Let torch.compile make kernels of each block when it is first run; weights and their names stay as they are.

    Returns:
        The number of blocks.
    """
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for block in blocks:
        block.compile(backend=backend)
    return len(blocks)


def initialize(model: nn.Module, blocks: Sequence[Block] | Sequence[AdaptiveBlock]) -> None:
    """V-JEPA's start: truncated normal 0.02, no bias, and the last layer of each branch of block l over sqrt(2 l).

    Adaptive blocks start without modulation.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for number, block in enumerate(blocks, start=1):
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.div_((2 * number) ** 0.5)
            if isinstance(block, AdaptiveBlock):
                block.modulation.weight.zero_()
