"""The network of NWM's conditional diffusion transformer (CDiT).

    context, C latents ──embed once───────────────────────────┐ keys, values
    noised latent ──embed──→ [ self-attention → cross-attention → MLP ] × depth ──→ norm ──→ estimate
                                      │ scale, shift, gate: 11 chunks          │ scale, shift
    diffusion time + time ahead + action           each number as 128 sines and cosines → MLP

Positions are learned, one for every token of context and target. One token is one patch: a VAE's latents are patched
before. Keys and values of the context depend on the diffusion time, through scale and shift: they are not kept between
evaluations. FLOPs of an evaluation, L blocks of width d, n tokens a latent, m latents of context:

    L [28 n d² + 4 n² d + 22 d² + 4 n d + m (4 n d² + 4 n² d)]  + the layers in and out      linear in m

Published sizes (hidden, depth, heads), in millions of parameters with 196 tokens of 16 numbers and a context of 4:
S 384, 12, 6: 49.2 · B 768, 12, 12: 195.3 · L 1024, 24, 16: 686.5 · XL 1152, 28, 16: 1012.0.

Sources: NWM (2412.03572), DiT (2212.09748).

Shapes: B rows · N tokens · D width · C latents of context, K = C*N tokens · W width inside · E outputs · A action.
"""

import torch
from jaxtyping import Float, Int
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.transformer import NORM_EPS, Attention

FREQUENCIES = 128  # DiT
SLOWEST = 10_000.0
ACTION_SCALE = 10.0  # sines of standardized actions would hardly differ
INITIAL_STD = 0.02  # DiT: of embeddings


class ScalarEmbedding(nn.Module):
    """A number as sines and cosines of 128 frequencies, from 1 rad down to 1e-4, and a small MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Float[Tensor, " B"]) -> Float[Tensor, "B W"]:
        frequency = SLOWEST ** (-torch.arange(FREQUENCIES, device=x.device) / FREQUENCIES)
        angles = x.float()[:, None] * frequency
        return self.mlp(torch.cat((angles.cos(), angles.sin()), -1).to(next(self.mlp.parameters()).dtype))


class CrossAttention(nn.Module):
    """Attention to other tokens, and to one learned key and value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.learned = nn.Parameter(torch.empty(1, 1, 2 * width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B L W"], context: Float[Tensor, "B K W"]) -> Float[Tensor, "B L W"]:
        pairs = torch.cat((self.key_value(context), self.learned.to(x.dtype).expand(len(x), -1, -1)), 1)
        key, value = pairs.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class TanhGELU(nn.GELU):
    """GELU in its tanh approximation."""

    def __init__(self) -> None:
        super().__init__(approximate="tanh")


class CDiTBlock(nn.Module):
    """Self-attention, cross-attention and MLP, scaled, shifted and gated by a condition; gates start at 0."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, NORM_EPS, elementwise_affine=False)
        self.attn = Attention(width, heads)
        self.cross = CrossAttention(width, heads)
        self.mlp = Mlp(width, 4 * width, act_layer=TanhGELU)
        self.modulation = nn.Linear(width, 11 * width)

    def forward(
        self, x: Float[Tensor, "B N W"], context: Float[Tensor, "B K W"], condition: Float[Tensor, "B W"]
    ) -> Float[Tensor, "B N W"]:
        chunks = self.modulation(F.silu(condition))[:, None].chunk(11, -1)
        self_gate, cross_gate, mlp_gate, *pairs = chunks
        x = x + self_gate * self.attn(self._modulated(x, *pairs[:2]), None)
        read = self._modulated(context, *pairs[2:4])
        x = x + cross_gate * self.cross(self._modulated(x, *pairs[4:6]), read)
        return x + mlp_gate * self.mlp(self._modulated(x, *pairs[6:]))

    def _modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return self.norm(x) * (1 + scale) + shift


class CDiTNetwork(nn.Module):
    """A noised latent, those before it and a condition -> what the network estimates; 0 before training.

    Args:
        hidden, depth, heads: of the blocks.
        context: latents that it reads.
        tokens, width: N and D of latents.
        actions: A, each number with an embedding of its own.
        outputs: numbers estimated of each token.

    Raises:
        ValueError: the action is wider than `hidden`.
    """

    def __init__(
        self, hidden: int, depth: int, heads: int, context: int, tokens: int, width: int, actions: int, outputs: int
    ) -> None:
        super().__init__()
        if actions > hidden:
            raise ValueError(f"hidden: expected {actions} or more, a channel for each number of the action")
        self.embed = nn.Linear(width, hidden)
        self.positions = nn.Parameter(torch.empty(context + 1, tokens, hidden))
        self.diffusion_time = ScalarEmbedding(hidden)
        self.time_ahead = ScalarEmbedding(hidden)
        rest = hidden - (actions - 1) * (hidden // actions)
        self.actions = nn.ModuleList(
            ScalarEmbedding(rest if number == actions - 1 else hidden // actions) for number in range(actions)
        )
        self.blocks = nn.ModuleList(CDiTBlock(hidden, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden, NORM_EPS, elementwise_affine=False)
        self.modulation = nn.Linear(hidden, 2 * hidden)
        self.out = nn.Linear(hidden, outputs)
        self._initialize()

    def context(self, z: Float[Tensor, "B C N D"]) -> Float[Tensor, "B K W"]:
        """The tokens of the latents seen; no evaluation changes them."""
        return (self.embed(z) + self.positions[:-1]).flatten(1, 2)

    def condition(self, action: Float[Tensor, "B A"], ahead: Float[Tensor, " B"]) -> Float[Tensor, "B W"]:
        """Of the action and the time ahead, which do not change from one evaluation to the next."""
        parts = [embed(number) for embed, number in zip(self.actions, (ACTION_SCALE * action).unbind(-1), strict=True)]
        return self.time_ahead(ahead) + torch.cat(parts, -1)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        t: Int[Tensor, " B"],
        context: Float[Tensor, "B K W"],
        condition: Float[Tensor, "B W"],
    ) -> Float[Tensor, "B N E"]:
        condition = condition + self.diffusion_time(t.float())
        x = self.embed(x) + self.positions[-1]
        for block in self.blocks:
            x = block(x, context, condition)
        scale, shift = self.modulation(F.silu(condition))[:, None].chunk(2, -1)
        return self.out(self.norm(x) * (1 + scale) + shift)

    @torch.no_grad()
    def _initialize(self) -> None:
        """DiT's: Xavier; embeddings small; modulations and the output 0."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                embeds = ".mlp." in name and not name.startswith("blocks")
                nn.init.normal_(module.weight, std=INITIAL_STD) if embeds else nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            if isinstance(module, CrossAttention):
                nn.init.xavier_normal_(module.learned)
            if name.endswith("modulation") or name == "out":
                assert isinstance(module, nn.Linear)
                nn.init.zeros_(module.weight)
        nn.init.normal_(self.positions, std=INITIAL_STD)
