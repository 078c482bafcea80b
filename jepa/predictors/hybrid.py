"""A hybrid of Mamba-2, MLP and attention layers over the tokens of all frames so far: Nemotron-H's stack as dynamics.

    token  = embed(latent z_t, action a_t)         action t takes frame t to t+1
    layer    x + mixer(RMSNorm(x))                 a mixer for each letter of `pattern`
               M  Mamba-2                          tokens in order, patch by patch; a memory of fixed size
               -  MLP, squared ReLU
               *  attention, grouped queries       its own frame and all before, or the last `window` frames
    z_{t+1} = z_t + project(RMSNorm(x))

Mamba layers know the order of what came before, and attention has no positions of its own. So a position is added
only where it would be missing: that of a patch in its frame if there are several, and the frame's number if no layer
is Mamba's. `step` keeps the memories of the Mamba layers, and the keys and values of the attention layers: the result
is that of the whole pass. Without attention, or with a `window`, the state stops growing.

Source: Nemotron-H (arXiv 2504.03624): 8B has 52 layers, M-M-M-M*- and on, width 4096, MLP 21504, 32 heads of 128 and 8
of keys and values, Mamba state 128 in 8 groups, 128 heads of 64. Its first layers read words; latents and actions
enter here, and what leaves is a change of the latent.

FLOPs of a token, W the width inside, K tokens read: M as in networks/mamba2.py; MLP 4*mlp_ratio*W²; attention
2*W*C*(2*heads + 2*kv_heads) + 4*K*heads*C, C = head_dim; 2*W*(2*D + A) to enter and leave.
"""

from dataclasses import dataclass
from typing import Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.config.fields import Count, Positive
from jepa.predictors.base import Predictor, PredictorConfig, check_no_states
from jepa.predictors.networks.kv_cache import Pair, Segment, append, frame_mask, trim
from jepa.predictors.networks.mamba2 import NORM_EPS, Mamba2, MambaState
from jepa.transformer import RMSNorm, grid_positions, sincos_table
from jepa.world_model import Deterministic, State

INITIAL_STD = 0.02  # Nemotron-H


@dataclass(frozen=True)
class HybridState:
    """What has been seen: `steps` frames, in the memories of the Mamba layers and the keys and values of the attention
    layers, and the newest one, whose action is still to come."""

    memories: tuple[MambaState, ...]
    past: tuple[Segment, ...]
    steps: int
    z: Float[Tensor, "B N D"]

    def repeat(self, k: int) -> "HybridState":
        """Candidates share the keys and values, and copy the memories."""
        return self.gather(torch.arange(len(self.z), device=self.z.device).repeat_interleave(k))

    def gather(self, index: Int[Tensor, " M"]) -> "HybridState":
        return HybridState(
            tuple(memory.gather(index) for memory in self.memories),
            tuple(part.gather(index) for part in self.past),
            self.steps,
            self.z[index],
        )

    def detach(self) -> "HybridState":
        return HybridState(
            tuple(memory.detach() for memory in self.memories),
            tuple(part.detach() for part in self.past),
            self.steps,
            self.z.detach(),
        )

    def nbytes(self) -> int:
        return self.z.nbytes + sum(part.nbytes() for part in (*self.memories, *self.past))


class SquaredReLU(nn.Module):
    """An MLP without a gate: down(relu(up(x))²)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "B L W"]) -> Float[Tensor, "B L W"]:
        return self.down(F.relu(self.up(x)).square())


class GroupedAttention(nn.Module):
    """Attention without positions whose query heads share keys and values, heads / kv_heads each."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.kv_heads = kv_heads
        self.head_dim = head_dim
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * head_dim, bias=False)
        self.out_proj = nn.Linear(heads * head_dim, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B L W"],
        past: list[Pair],
        mask: Bool[Tensor, "1 1 L K"] | None,
        pairs: list[Pair] | None,
    ) -> Float[Tensor, "B L W"]:
        """What each token gathers from `past` and the new ones; `pairs` takes the new keys and values."""
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        query, shared = heads.split((self.heads, 2 * self.kv_heads), 1)
        key, value = append(past, pairs, *shared.chunk(2, 1))
        read = F.scaled_dot_product_attention(query, key, value, mask, enable_gqa=self.heads != self.kv_heads)
        return self.out_proj(read.transpose(1, 2).flatten(2))


class HybridStack(nn.Module):
    """The layers: tokens of frames in, tokens out, with what is remembered of earlier ones."""

    def __init__(self, config: "HybridPredictor.Config") -> None:
        super().__init__()
        self.norms = nn.ModuleList(RMSNorm(config.hidden, NORM_EPS) for _ in config.pattern)
        self.mixers = nn.ModuleList(_mixer(kind, config) for kind in config.pattern)
        self.norm = RMSNorm(config.hidden, NORM_EPS)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                leaves = name.endswith(("out_proj", "down"))
                nn.init.trunc_normal_(module.weight, std=INITIAL_STD / (len(config.pattern) ** 0.5 if leaves else 1))

    def initial_memories(self, x: Float[Tensor, "B L W"]) -> tuple[MambaState, ...]:
        """Of the Mamba layers, before the first token."""
        return tuple(mixer.initial_state(x) for mixer in self.mixers if isinstance(mixer, Mamba2))

    def forward(
        self,
        x: Float[Tensor, "B L W"],
        memories: tuple[MambaState, ...],
        past: tuple[Segment, ...] = (),
        mask: Bool[Tensor, "1 1 L K"] | None = None,
        pairs: list[Pair] | None = None,
    ) -> tuple[Float[Tensor, "B L W"], tuple[MambaState, ...]]:
        """Tokens that follow those of `memories` and `past`, and the memories after them.

        Args:
            mask: where a token (row) may read another, past ones first (column); None: everywhere.
            pairs: takes the keys and values of the attention layers.
        """
        before, after = iter(memories), list[MambaState]()
        attention = 0
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            entered = norm(x)
            if isinstance(mixer, Mamba2):
                change, memory = mixer(entered, next(before))
                after.append(memory)
            elif isinstance(mixer, GroupedAttention):
                change = mixer(entered, [part.read(attention) for part in past], mask, pairs)
                attention += 1
            else:
                change = mixer(entered)
            x = x + change
        return self.norm(x), tuple(after)


class HybridPredictor(Predictor):
    """Predicts the next frame's latents under an action; the Dynamics of `jepa.world_model`.

    Args:
        width: D; latents are [B, S, N, D].
        action_size: width of the action of one latent step.
        grid: rows and columns of the patches, N = rows * columns; (1, 1) for a latent that is one vector.
    """

    reads_patches = True

    class Config(PredictorConfig):
        """Mamba-2, MLP and attention layers (Nemotron-H)."""

        kind: Literal["hybrid"] = "hybrid"
        pattern: str = Field(default="M-M*-M-", description="a letter a layer: M Mamba-2, - MLP, * attention")
        hidden: Count = 192
        mlp_ratio: Positive = 4.0
        heads: Count = Field(default=6, description="of queries")
        kv_heads: Count = Field(default=2, description="of keys and values, each shared by heads / kv_heads queries")
        head_dim: Count | None = Field(default=None, description="channels of a head; none: hidden / heads")
        window: Count | None = Field(default=None, description="frames that attention reads; none: all before it")
        mamba_heads: Count = 12
        mamba_head_dim: Count = 32
        mamba_groups: Count = Field(default=1, description="of Mamba heads, which share what they write and read")
        mamba_state: Count = Field(default=32, description="numbers remembered for each channel of a Mamba head")
        mamba_conv: Count = Field(default=4, description="tokens that its convolution reads")
        chunk: Count = Field(default=32, description="tokens of the scan's chunks: speed and memory, not results")
        layer_norm_out: bool = Field(
            default=False, description="predictions are LayerNormed, without affine, as the latents are"
        )

        @model_validator(mode="after")
        def _sizes_fit(self) -> Self:
            if not self.pattern or set(self.pattern) - set("M-*"):
                raise ValueError(
                    f"pattern: expected letters M (Mamba-2), - (MLP) and * (attention), found {self.pattern!r}"
                )
            if not set(self.pattern) & set("M*"):
                raise ValueError(f"pattern: {self.pattern!r} has no memory; add M or *, or use kind mlp")
            if self.heads % self.kv_heads:
                raise ValueError(f"kv_heads: {self.heads} heads do not divide into {self.kv_heads}")
            if self.head_dim is None and self.hidden % self.heads:
                raise ValueError(f"heads: hidden {self.hidden} does not divide into {self.heads}; give head_dim")
            if self.mamba_heads % self.mamba_groups:
                raise ValueError(f"mamba_groups: {self.mamba_heads} heads do not divide into {self.mamba_groups}")
            return self

    def __init__(self, config: Config, width: int, action_size: int, grid: tuple[int, int] = (1, 1)) -> None:
        super().__init__(config, width, action_size)
        self.grid = grid
        self.tokens = grid[0] * grid[1]
        self.ordered = "M" in config.pattern
        self.context = None if self.ordered else config.window
        self.embed = nn.Linear(width + action_size, config.hidden)
        self.stack = HybridStack(config)
        self.project = nn.Linear(config.hidden, width)
        nn.init.trunc_normal_(self.project.weight, std=INITIAL_STD)
        nn.init.zeros_(self.project.bias)

    def parallel(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S A"], states: Float[Tensor, "B S X"] | None = None
    ) -> Float[Tensor, "B S N D"]:
        """Teacher-forced: row s is the prediction of latent s+1 from latents and actions up to s.

        Raises ValueError if a width is another than in training, or there are states.
        """
        check_no_states(self, states)
        x = self._tokens(z, actions, 0)
        x, _ = self.stack(x, self.stack.initial_memories(x), mask=self._mask(z.shape[1], z.device))
        return self._next_latent(z, x)

    forward = parallel

    def initial_state(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> HybridState:
        """After S latents and the S-1 actions between them. Raises ValueError as `parallel`."""
        check_no_states(self, states)
        seen = z.shape[1] - 1
        x = self._tokens(z[:, :seen], actions, 0)
        memories, past = self.stack.initial_memories(x), ()
        if seen:
            pairs = list[Pair]()
            _, memories = self.stack(x, memories, (), self._mask(seen, z.device), pairs)
            past = self._kept((), pairs)
        return HybridState(memories, past, seen, z[:, -1])

    def step(
        self, state: State, action: Float[Tensor, "B A"], noise: Tensor | None = None, temperature: float = 1.0
    ) -> tuple[HybridState, Deterministic]:
        assert isinstance(state, HybridState)
        pairs = list[Pair]()
        x = self._tokens(state.z[:, None], action[:, None], state.steps)
        x, memories = self.stack(x, state.memories, state.past, None, pairs)
        z = self._next_latent(state.z[:, None], x)[:, 0]
        return HybridState(memories, self._kept(state.past, pairs), state.steps + 1, z), Deterministic(z)

    def _tokens(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S A"], first: int
    ) -> Float[Tensor, "B L W"]:
        """Those of S frames, number `first` and on."""
        if z.shape[2:] != (self.tokens, self.width):
            raise ValueError(f"the predictor reads latents [{self.tokens}, {self.width}], found {list(z.shape[2:])}")
        self._check_actions(actions)
        conditions = self.scale_actions(actions)[:, :, None].expand(-1, -1, self.tokens, -1)
        x = self.embed(torch.cat((z, conditions.to(z.dtype)), -1)).flatten(1, 2)
        if self.ordered and self.tokens == 1:
            return x
        steps = z.shape[1]
        positions = grid_positions(torch.arange(steps * self.tokens, device=z.device)[None], (steps, *self.grid))
        frame = torch.zeros_like(positions[..., 0]) if self.ordered else positions[..., 0] + first
        positions = torch.cat((frame[..., None], positions[..., 1:]), -1)
        return x + sincos_table(positions, x.shape[-1]).to(x.dtype)

    def _mask(self, steps: int, device: torch.device) -> Bool[Tensor, "1 1 L L"] | None:
        return None if steps == 1 else frame_mask(0, steps, self.tokens, self.config.window, device)

    def _kept(self, past: tuple[Segment, ...], pairs: list[Pair]) -> tuple[Segment, ...]:
        """The keys and values that the next frame reads."""
        return trim((*past, Segment(tuple(pairs))), self.config.window, self.tokens) if pairs else ()

    def _next_latent(self, z: Float[Tensor, "B S N D"], x: Float[Tensor, "B L W"]) -> Float[Tensor, "B S N D"]:
        z = z + self.project(x).unflatten(1, z.shape[1:3])
        return F.layer_norm(z, (self.width,)) if self.config.layer_norm_out else z


def _mixer(kind: str, config: HybridPredictor.Config) -> nn.Module:
    if kind == "M":
        return Mamba2(
            config.hidden,
            config.mamba_heads,
            config.mamba_head_dim,
            config.mamba_state,
            config.mamba_groups,
            config.mamba_conv,
            config.chunk,
        )
    if kind == "*":
        head_dim = config.head_dim or config.hidden // config.heads
        return GroupedAttention(config.hidden, config.heads, config.kv_heads, head_dim)
    return SquaredReLU(config.hidden, round(config.hidden * config.mlp_ratio))
