"""V-JEPA's predictor: predicts the tokens of the hidden part of a clip from those of the visible part.

A narrow transformer reads the context tokens, and a learned mask token at each hidden position. Its outputs at the
hidden positions are the prediction. The order of the tokens does not matter.

    tokens       in                                 positions    out
    V-JEPA 1     D → width                          sincos       width → D
    V-JEPA 2     D → width                          rotary       width → D
    V-JEPA 2.1   4 levels: 4D → D → GELU → width    rotary       width → 4D, and another head at the context tokens

Sources: V-JEPA (arXiv 2404.08471), V-JEPA 2 (arXiv 2506.09985): width 384, depth 12, heads 12.

Forward FLOPs for M tokens (H of them hidden), W its width, I and O levels in and out: those of the blocks,
M * depth * (8*W² + 4*W²*mlp_ratio + 4*M*W), and 2*(M-H)*W*D in and 2*H*W*O*D out; with I > 1 the way in takes
2*(M-H)*(I*D² + D*W), with a context head the way out 2*M*W*O*D.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from jepa.config import Component
from jepa.config.fields import Count, Positive
from jepa.transformer import (
    NORM_EPS,
    Block,
    Grid,
    Modality,
    Positions,
    grid_positions,
    initialize,
    rotary_table,
    sincos_table,
)


class MaskedPredictor(nn.Module):
    """Predicts hidden tokens.

    Args:
        encoder_width: width D of the input tokens.
        mask_kinds: each kind of mask (short-range, long-range) has its own mask token.
        levels_in: number of concatenated encoder levels in the input (V-JEPA 2.1: 4).
        levels_out: number of predicted levels, each of `target_width`.
        target_width: width of the targets, for a frozen teacher of another size; None: `encoder_width`.
        context_head: also predict the context tokens, with a separate head (V-JEPA 2.1's dense loss).
        images: the encoder also takes single images; learned vectors mark image and video tokens.
        position_grid: see `grid_positions`.
    """

    class Config(Component):
        """V-JEPA's predictor."""

        kind: Literal["masked"] = "masked"
        width: Count = Field(
            default=384, description="if much wider than the encoder, it takes most of the time of a step"
        )
        depth: Count = 12
        heads: Count = 12
        mlp_ratio: Positive = 4.0
        positions: Positions = Field(
            default="rotary", description="rotary_tiled and sincos are for the published weights of V-JEPA 2 and 1"
        )

    def __init__(
        self,
        config: Config,
        encoder_width: int,
        *,
        mask_kinds: int = 2,
        levels_in: int = 1,
        levels_out: int = 1,
        target_width: int | None = None,
        context_head: bool = False,
        images: bool = False,
        position_grid: int | None = None,
    ):
        super().__init__()
        self.config = config
        self.shape = {  # what makes another one like it, beside the config
            "encoder_width": encoder_width,
            "mask_kinds": mask_kinds,
            "levels_in": levels_in,
            "levels_out": levels_out,
            "target_width": target_width,
            "context_head": context_head,
            "images": images,
            "position_grid": position_grid,
        }
        width = config.width
        self.width = width
        self.position_grid = position_grid
        self.levels_out = levels_out
        self.images = images
        out = levels_out * (target_width or encoder_width)
        if levels_in == 1:
            self.predictor_embed = nn.Linear(encoder_width, width)
        else:
            wide = nn.Linear(levels_in * encoder_width, encoder_width)
            self.predictor_embed = nn.Sequential(wide, nn.GELU(), nn.Linear(encoder_width, width))
        self.mask_tokens = nn.Parameter(torch.zeros(mask_kinds, width))  # zero at the start, as in V-JEPA
        self.predictor_blocks = nn.ModuleList(
            [Block(width, config.heads, config.mlp_ratio) for _ in range(config.depth)]
        )
        self.predictor_norm = nn.LayerNorm(width, NORM_EPS)
        self.predictor_proj = nn.Linear(width, out)
        self.predictor_proj_context = nn.Linear(width, out) if context_head else None
        if images:  # V-JEPA 2.1 starts them next to nothing
            self.video_token = nn.Parameter(torch.randn(1, 1, width) * 1e-6)
            self.image_token = nn.Parameter(torch.randn(1, 1, width) * 1e-6)
        initialize(self, list(self.predictor_blocks))  # pyright: ignore[reportArgumentType] - ModuleList forgets its type

    def forward(
        self,
        context: Float[Tensor, "B Mc C"],
        context_index: Int[Tensor, "B Mc"],
        target_index: Int[Tensor, "B Mt"],
        grid: Grid,
        kind: int = 0,
        modality: Modality = "video",
    ) -> Float[Tensor, "B Mt O"]:
        """Tokens at `target_index` from those at `context_index`, flat indices over `grid` (steps, rows, columns).

        C is levels_in times the encoder's width, O is levels_out times the target's. `kind` is that of the mask;
        `modality` is only used with `images`.
        """
        x = self._latents(context, context_index, target_index, grid, kind, modality)
        return self.predictor_proj(x[:, context.shape[1] :])

    def forward_dense(
        self,
        context: Float[Tensor, "B Mc C"],
        context_index: Int[Tensor, "B Mc"],
        target_index: Int[Tensor, "B Mt"],
        grid: Grid,
        kind: int = 0,
        modality: Modality = "video",
    ) -> tuple[Float[Tensor, "B Mt O"], Float[Tensor, "B Mc O"]]:
        """The hidden tokens as in `forward`, and the visible tokens predicted by the context head."""
        if self.predictor_proj_context is None:
            raise ValueError("this predictor has no context head (context_head=True)")
        x = self._latents(context, context_index, target_index, grid, kind, modality)
        seen = context.shape[1]
        return self.predictor_proj(x[:, seen:]), self.predictor_proj_context(x[:, :seen])

    def _latents(
        self,
        context: Float[Tensor, "B Mc C"],
        context_index: Int[Tensor, "B Mc"],
        target_index: Int[Tensor, "B Mt"],
        grid: Grid,
        kind: int,
        modality: Modality,
    ) -> Float[Tensor, "B M W"]:
        known = self.predictor_embed(context)
        unknown = self.mask_tokens[kind].to(known.dtype).expand(*target_index.shape, -1)
        x = torch.cat((known, unknown), 1)
        positions = grid_positions(torch.cat((context_index, target_index), 1), grid, self.position_grid)
        if self.images:
            x = x + (self.video_token if modality == "video" else self.image_token).to(x.dtype)
        rotary = None
        if self.config.positions == "sincos":
            x = x + sincos_table(positions, self.width).to(x.dtype)
        else:
            rotary = rotary_table(positions, self.width // self.config.heads, self.config.positions)
        for block in self.predictor_blocks:
            x = block(x, rotary)
        return self.predictor_norm(x)
