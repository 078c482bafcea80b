"""Attentive classifier: all tokens of a clip to scores of classes, V-JEPA 2's head for action recognition.

    tokens [B, M, D] → blocks 0 … depth-1 → norm → keys, values ─┐
    query [1, 1, D] ───┬───────────────────────────────→ queries ┴→ read → + ─┬→ norm → MLP → + → head → [B, classes]
                       └───────────────────────────────────────────────────┘  └───────────────┘

The tokens attend to one another without positions, which the encoder has already added; then one learned query
reads them all. It enters as it is, without a norm, and what it reads is added to it without a projection.

Source: V-JEPA 2 (arXiv 2506.09985): 16 heads, three blocks and the reading one, MLPs of four times the width. The norms
have the eps of its published weights in transformers, 1e-6, the MLPs the exact GELU.
"""

import torch
from jaxtyping import Float
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.transformer import NORM_EPS, Block, initialize


class AttentiveClassifier(nn.Module):
    """Tokens [B, M, D], or [B, S, N, D] as an encoder gives them out, to logits [B, classes].

    Args:
        width: D of the tokens, and of everything inside.
        heads: of attention; they divide `width`.
        depth: blocks before the query reads; 0: it reads the tokens as they come in.
        classes: how many there are to tell apart.
        mlp_ratio: hidden width of the MLPs over `width`.

    Raises:
        ValueError: the heads do not divide the width, the depth is negative, or there are no classes.
    """

    def __init__(self, width: int, heads: int, depth: int, classes: int, mlp_ratio: float = 4.0):
        super().__init__()
        if width < 1 or heads < 1 or width % heads or depth < 0 or classes < 1:
            raise ValueError(
                "a classifier needs heads that divide its width, a depth of at least 0 and a class or more; found "
                f"width {width}, {heads} heads, depth {depth}, {classes} classes"
            )
        # What makes another one like it.
        self.settings = {"width": width, "heads": heads, "depth": depth, "classes": classes, "mlp_ratio": mlp_ratio}
        self.width, self.classes = width, classes
        self.blocks = nn.ModuleList([Block(width, heads, mlp_ratio) for _ in range(depth)])
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))
        self.reader = Reader(width, heads, mlp_ratio)
        self.head = nn.Linear(width, classes)
        initialize(self, list(self.blocks))  # pyright: ignore[reportArgumentType] - ModuleList forgets its type
        with torch.no_grad():  # the reader follows the blocks: the same rule
            self.reader.mlp.fc2.weight.div_((2 * (depth + 1)) ** 0.5)

    def forward(self, tokens: Float[Tensor, "B M D"] | Float[Tensor, "B S N D"]) -> Float[Tensor, "B classes"]:
        """Raises ValueError for tokens of another width."""
        if tokens.shape[-1] != self.width:
            raise ValueError(f"classifies tokens [B, M, {self.width}], found {list(tokens.shape)}")
        x = tokens.flatten(1, -2)
        for block in self.blocks:
            x = block(x, None)
        return self.head(self.reader(self.query.expand(len(x), -1, -1), x)[:, 0])


class Reader(nn.Module):
    """Queries read tokens: cross-attention without an output projection, then an MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, NORM_EPS)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.norm2 = nn.LayerNorm(width, NORM_EPS)
        self.mlp = Mlp(width, round(width * mlp_ratio))

    def forward(self, queries: Float[Tensor, "B Q D"], tokens: Float[Tensor, "B M D"]) -> Float[Tensor, "B Q D"]:
        query = self.q(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, Q, C]
        kv = self.kv(self.norm1(tokens)).unflatten(-1, (2, self.heads, -1))  # [B, M, 2, heads, C]
        key, value = kv.transpose(1, 3).unbind(2)
        x = queries + F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return x + self.mlp(self.norm2(x))
