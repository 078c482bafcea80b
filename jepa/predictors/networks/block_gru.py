"""DreamerV3's recurrent core, a GRU whose blocks share their inputs and nothing else (arXiv 2301.04104).

    h ─┐ each: Linear, RMSNorm, SiLU                    for each of G blocks, its part h_g of h:
    s ─┼──→ x = [x_h, x_s, x_a] ──→ [h_g, x] ─→ block-linear, RMSNorm, SiLU ─→ block-linear ─→ reset, candidate, update
    a ─┘
    h' = u * tanh(σ(reset) * candidate) + (1 - u) * h       u = σ(update - 1): it starts by keeping what it holds

Weights start as published: truncated normal, deviation 1.1368 / √(inputs), biases zero.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.transformer import RMSNorm

NORM_EPS = 1e-4  # DreamerV3
SPREAD = 1.1368  # of a normal that is cut at two deviations, to have a deviation of 1
UPDATE_BIAS = -1.0


class BlockLinear(nn.Module):
    """`blocks` independent linear layers side by side, each over its part of the numbers.

    Raises:
        ValueError: the numbers do not divide into the blocks.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        if inputs % blocks or outputs % blocks:
            raise ValueError(f"{inputs} numbers in and {outputs} out do not divide into {blocks} blocks")
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs))
        _truncated_normal(self.weight, inputs)

    def forward(self, x: Float[Tensor, "*batch I"]) -> Float[Tensor, "*batch O"]:
        parts = x.unflatten(-1, (len(self.weight), -1))
        return torch.einsum("...gi,gio->...go", parts, self.weight).flatten(-2) + self.bias


class BlockGRU(nn.Module):
    """h' from h, a stochastic state and an action.

    Args:
        size: numbers of h; a multiple of `blocks`.
        stochastic, action_size: numbers of the other two.
        hidden: width of the layers that embed the three.
    """

    def __init__(self, size: int, stochastic: int, action_size: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.embed_recurrent = mlp(size, hidden)
        self.embed_stochastic = mlp(stochastic, hidden)
        self.embed_action = mlp(action_size, hidden)
        self.enter = nn.Sequential(
            BlockLinear(size + 3 * hidden * blocks, size, blocks), RMSNorm(size, NORM_EPS), nn.SiLU()
        )
        self.gates = BlockLinear(size, 3 * size, blocks)

    def forward(
        self, h: Float[Tensor, "*B R"], stochastic: Float[Tensor, "*B Z"], action: Float[Tensor, "*B A"]
    ) -> Float[Tensor, "*B R"]:
        embedded = (self.embed_recurrent(h), self.embed_stochastic(stochastic), self.embed_action(action))
        shared = torch.cat(embedded, -1)[..., None, :].expand(*h.shape[:-1], self.blocks, -1)
        parts = torch.cat((h.unflatten(-1, (self.blocks, -1)), shared), -1).flatten(-2)
        gates = self.gates(self.enter(parts)).unflatten(-1, (self.blocks, 3, -1))
        reset, candidate, update = (gate.flatten(-2) for gate in gates.unbind(-2))
        update = F.sigmoid(update + UPDATE_BIAS)
        return update * F.tanh(F.sigmoid(reset) * candidate) + (1 - update) * h


def mlp(inputs: int, hidden: int, layers: int = 1, outputs: int | None = None) -> nn.Sequential:
    """`layers` of Linear, RMSNorm and SiLU, and a linear layer to `outputs` numbers, if any."""
    modules = list[nn.Module]()
    for _ in range(layers):
        modules += [linear(inputs, hidden), RMSNorm(hidden, NORM_EPS), nn.SiLU()]
        inputs = hidden
    if outputs is not None:
        modules.append(linear(inputs, outputs))
    return nn.Sequential(*modules)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts as in DreamerV3."""
    layer = nn.Linear(inputs, outputs)
    _truncated_normal(layer.weight, inputs)
    nn.init.zeros_(layer.bias)
    return layer


def _truncated_normal(weight: Tensor, inputs: int) -> None:
    std = SPREAD / inputs**0.5
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
