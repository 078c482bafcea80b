"""V-JEPA's predictor: from the tokens of the visible part of a clip, the tokens of the hidden part.

A narrow transformer reads the context tokens and, at each hidden position, a learned mask token; what stands at the
hidden positions afterwards is the prediction. The positions are rotary, so the order of the tokens carries no meaning
and nothing is sorted. Source: V-JEPA (arXiv 2404.08471), V-JEPA 2 (arXiv 2506.09985): width 384, depth 12, heads 12.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepa.transformer import NORM_EPS, Block, Grid, Rotary, grid_positions, initialise, rotary_table


class MaskedPredictor(nn.Module):
    """Predicts hidden tokens.

    Args:
        encoder_width: width D of the tokens that come in and go out.
        width: its own width. A predictor much larger than the encoder takes most of a step's time: scale it along.
        mask_kinds: each kind of mask (short-range, long-range) has its own mask token.
        positions: "rotary_tiled" is for the published weights of V-JEPA 2.
    """

    def __init__(
        self,
        encoder_width: int,
        width: int = 384,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        mask_kinds: int = 2,
        positions: Rotary = "rotary",
    ):
        super().__init__()
        self.heads = heads
        self.positions: Rotary = positions
        self.predictor_embed = nn.Linear(encoder_width, width)
        self.mask_tokens = nn.Parameter(torch.zeros(mask_kinds, width))  # zero at the start, as in V-JEPA
        self.predictor_blocks = nn.ModuleList([Block(width, heads, mlp_ratio) for _ in range(depth)])
        self.predictor_norm = nn.LayerNorm(width, NORM_EPS)
        self.predictor_proj = nn.Linear(width, encoder_width)
        initialise(self, list(self.predictor_blocks))  # pyright: ignore[reportArgumentType] - ModuleList forgets its type

    def forward(
        self,
        context: Float[Tensor, "B Mc D"],
        context_index: Int[Tensor, "B Mc"],
        target_index: Int[Tensor, "B Mt"],
        grid: Grid,
        kind: int = 0,
    ) -> Float[Tensor, "B Mt D"]:
        """Tokens at `target_index` from those at `context_index`, flat indices over `grid` (steps, rows, columns)."""
        known = self.predictor_embed(context)
        unknown = self.mask_tokens[kind].to(known.dtype).expand(*target_index.shape, -1)
        x = torch.cat((known, unknown), 1)
        positions = grid_positions(torch.cat((context_index, target_index), 1), grid)
        rotary = rotary_table(positions, known.shape[-1] // self.heads, self.positions)
        for block in self.predictor_blocks:
            x = block(x, rotary)
        return self.predictor_proj(self.predictor_norm(x[:, context.shape[1] :]))
