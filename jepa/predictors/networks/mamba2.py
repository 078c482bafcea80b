"""Mamba-2: a layer whose memory of all tokens before is one matrix a head, of the same size however long they are.

    x ──in_proj──→ gate [I]            xBC [I + 2 G M]                 dt [H]
                    │       causal depthwise convolution, SiLU   softplus(dt + bias)
                    │              x [H, P]   B, C [G, M]               │
                    │      state_t = exp(dt_t A) state_{t-1} + dt_t x_t ⊗ B_t        [H, P, M], A < 0
                    │          y_t = state_t C_t + skip x_t
                    └──→ RMSNorm(y silu(gate)) ──out_proj──→

Two ways to the same numbers (the state-space duality, arXiv 2405.21060): token by token as above, which is how plans
are rolled out, and in chunks of Q tokens. Within a chunk all pairs of tokens are weighed at once, like attention whose
weights decay; between chunks only the state is handed on:

    y_t = Σ_{s ≤ t} (C_t · B_s) exp(a_{s+1} + … + a_t) dt_s x_s  +  exp(a_1 + … + a_t) state C_t        a = dt A

The sums of a are taken over each span by itself: differences of a running sum would lose digits where it is large.
The scan runs in fp32 or higher, whatever the autocast.

FLOPs of a token, width W: 2 W (2 I + 2 G M + H) + 2 I W for the projections, 6 I M for a step of the recurrence; in
chunks 2 Q (G M + I) + 4 I M.

Shapes: B batch · L tokens · K chunks · H heads in G groups · P channels of a head · I = H P · M state · T taps.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-5  # Mamba-2, Nemotron-H
DECAY_RANGE = (1.0, 16.0)  # of -A, and the times dt start between these: Mamba-2
TIME_RANGE = (0.001, 0.1)


@dataclass(frozen=True)
class MambaState:
    """What a Mamba-2 layer remembers: the tokens that its convolution reads again, one less than its taps, and the
    state of each head."""

    conv: Float[Tensor, "B T E"]
    ssm: Float[Tensor, "B H P M"]

    def gather(self, index: Int[Tensor, " N"]) -> "MambaState":
        return MambaState(self.conv[index], self.ssm[index])

    def detach(self) -> "MambaState":
        return MambaState(self.conv.detach(), self.ssm.detach())

    def nbytes(self) -> int:
        return self.conv.nbytes + self.ssm.nbytes


class Mamba2(nn.Module):
    """The mixer of a Mamba-2 layer; causal over tokens.

    Args:
        width: of the tokens.
        heads, head_dim: H and P.
        state: M, numbers kept for each channel.
        groups: heads of a group share B and C.
        taps: tokens that the convolution reads, the present one among them.
        chunk: tokens of a chunk of the scan. It changes speed and memory (B L Q H numbers), not the result.

    Raises:
        ValueError: the heads do not divide into the groups.
    """

    def __init__(
        self, width: int, heads: int, head_dim: int, state: int, groups: int = 1, taps: int = 4, chunk: int = 64
    ) -> None:
        super().__init__()
        if heads % groups:
            raise ValueError(f"{heads} Mamba heads do not divide into {groups} groups")
        self.heads = heads
        self.head_dim = head_dim
        self.groups = groups
        self.state = state
        self.taps = taps
        self.chunk = chunk
        self.inner = heads * head_dim
        mixed = self.inner + 2 * groups * state
        self.in_proj = nn.Linear(width, self.inner + mixed + heads, bias=False)
        bound = taps**-0.5
        self.conv_weight = nn.Parameter(torch.empty(taps, mixed).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.empty(mixed).uniform_(-bound, bound))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(*DECAY_RANGE).log())
        time = torch.empty(heads).uniform_(*map(math.log, TIME_RANGE)).exp()
        self.dt_bias = nn.Parameter(time + torch.log(-torch.expm1(-time)))  # softplus of it is the time
        self.skip = nn.Parameter(torch.ones(heads))
        self.norm_weight = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, width, bias=False)

    def initial_state(self, x: Float[Tensor, "B L W"]) -> MambaState:
        """Before the first token."""
        return MambaState(
            x.new_zeros(len(x), self.taps - 1, self.conv_bias.shape[0]),
            x.new_zeros(len(x), self.heads, self.head_dim, self.state),
        )

    def forward(self, x: Float[Tensor, "B L W"], before: MambaState) -> tuple[Float[Tensor, "B L W"], MambaState]:
        """The output at each token, and the memory after the last; `before` is left as it was."""
        gate, ungated = self.in_proj(x).split((self.inner, self.conv_bias.shape[0] + self.heads), -1)
        mixed, dt = ungated.split((self.conv_bias.shape[0], self.heads), -1)
        inputs = torch.cat((before.conv.to(mixed.dtype), mixed), 1)
        length = x.shape[1]
        mixed = sum((inputs[:, t : t + length] * self.conv_weight[t] for t in range(self.taps)), self.conv_bias)
        y, ssm = self._scan(F.silu(mixed), dt, before.ssm)
        recent = inputs[:, length:].clone()  # not a view: the memory of a whole clip would stay alive
        return self.out_proj(self._gated_norm(y, gate)), MambaState(recent, ssm)

    def _scan(
        self, mixed: Float[Tensor, "B L E"], dt: Float[Tensor, "B L H"], state: Float[Tensor, "B H P M"]
    ) -> tuple[Float[Tensor, "B L I"], Float[Tensor, "B H P M"]]:
        with torch.autocast(mixed.device.type, enabled=False):
            precision = torch.promote_types(mixed.dtype, torch.float32)
            x, shared = mixed.to(precision).split((self.inner, 2 * self.groups * self.state), -1)
            x = x.unflatten(-1, (self.heads, self.head_dim))
            b, c = shared.unflatten(-1, (2, self.groups, self.state)).unbind(-3)
            time = F.softplus(dt.to(precision) + self.dt_bias)
            log_decay = -time * self.A_log.exp()
            state = state.to(precision)
            if x.shape[1] == 1:
                y, state = recurrent_step(x[:, 0] * time[:, 0, :, None], log_decay[:, 0], b[:, 0], c[:, 0], state)
                y = y[:, None]
            else:
                y, state = chunked_scan(x * time[..., None], log_decay, b, c, state, self.chunk)
            return (y + self.skip[:, None] * x).flatten(2), state

    def _gated_norm(self, y: Float[Tensor, "B L I"], gate: Float[Tensor, "B L I"]) -> Float[Tensor, "B L I"]:
        """RMSNorm over each group's channels, after the gate."""
        gated = (y * F.silu(gate.to(y.dtype))).unflatten(-1, (self.groups, -1))
        return (F.rms_norm(gated, gated.shape[-1:], eps=NORM_EPS).flatten(-2) * self.norm_weight).to(gate.dtype)


def recurrent_step(
    x: Float[Tensor, "B H P"],
    log_decay: Float[Tensor, "B H"],
    b: Float[Tensor, "B G M"],
    c: Float[Tensor, "B G M"],
    state: Float[Tensor, "B H P M"],
) -> tuple[Float[Tensor, "B H P"], Float[Tensor, "B H P M"]]:
    """One token: what it reads of the new state, and that state. `x` is times dt."""
    share = x.shape[1] // b.shape[1]
    b, c = b.repeat_interleave(share, 1), c.repeat_interleave(share, 1)
    state = log_decay.exp()[..., None, None] * state + x[..., None] * b[:, :, None]
    return (state @ c[..., None])[..., 0], state


def chunked_scan(
    x: Float[Tensor, "B L H P"],
    log_decay: Float[Tensor, "B L H"],
    b: Float[Tensor, "B L G M"],
    c: Float[Tensor, "B L G M"],
    state: Float[Tensor, "B H P M"],
    chunk: int,
) -> tuple[Float[Tensor, "B L H P"], Float[Tensor, "B H P M"]]:
    """`recurrent_step` over L tokens, in chunks; L need not be a multiple. `x` is times dt."""
    length, groups = b.shape[1:3]
    size = min(chunk, length)
    grouped = (groups, x.shape[2] // groups)
    x, b = _in_chunks(x.unflatten(2, grouped), size), _in_chunks(b, size)
    c = _in_chunks(c, size)
    a = _in_chunks(log_decay.unflatten(2, grouped), size).movedim(2, -1)  # [B, K, G, R, Q]: R heads a group
    decay = _span_sums(a).exp()  # [B, K, G, R, Q, Q], from a column's token to a row's

    weights = torch.einsum("bktgm,bksgm->bkgts", c, b)[:, :, :, None] * decay
    y = torch.einsum("bkgrts,bksgrp->bktgrp", weights, x)

    left = torch.einsum("bkgrs,bksgrp,bksgm->bkgrpm", decay[..., -1, :], x, b)  # by each chunk, at its end
    total = a.sum(-1).exp()[..., None, None]
    state = state.unflatten(1, grouped)
    starts = []
    for k in range(len(left[0])):
        starts.append(state)
        state = total[:, k] * state + left[:, k]
    since = a.cumsum(-1).exp().movedim(-1, 2)[..., None]
    y = y + since * torch.einsum("bktgm,bkgrpm->bktgrp", c, torch.stack(starts, 1))
    return y.flatten(1, 2)[:, :length].flatten(2, 3), state.flatten(1, 2)


def _in_chunks(x: Tensor, size: int) -> Tensor:
    """[B, L, …] as [B, K, size, …]; zeros at the end, which neither add to a state nor decay it."""
    missing = -x.shape[1] % size
    return F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing)).unflatten(1, (-1, size))


def _span_sums(a: Float[Tensor, "*B Q"]) -> Float[Tensor, "*B Q Q"]:
    """a[s+1] + … + a[t] at row t and column s; -inf where s > t. Each is a sum of its own."""
    size = a.shape[-1]
    lower = torch.ones(size, size, dtype=torch.bool, device=a.device).tril(-1)
    sums = a[..., None].expand(*a.shape, size).masked_fill(~lower, 0).cumsum(-2)
    return sums.masked_fill(lower.T, -torch.inf)
