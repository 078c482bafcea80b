"""Optimizers: DreamerV3's, Muon, and clipping each gradient by its own parameter."""

from copy import deepcopy
from typing import Literal

import pytest
import torch
from torch import nn

from jepa.training.config import OptimizerConfig
from jepa.training.optim import MIN_NORM, clip_adaptively, optimizer_of

ORTHOGONALIZATION = (  # five iterations of a polynomial, as in modded-nanogpt
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def test_laprop_is_rms_then_momentum():
    layer = nn.Linear(3, 2, bias=False)
    weights = layer.weight.detach().clone()
    config = OptimizerConfig(kind="laprop", lr=0.01, weight_decay=0.0, betas=(0.9, 0.999))
    optimizer = optimizer_of(config)(layer)
    square, momentum = torch.zeros_like(weights), torch.zeros_like(weights)
    for step in range(1, 6):
        layer.weight.grad = torch.randn(2, 3, generator=torch.Generator().manual_seed(step))
        optimizer.step()
        square = 0.999 * square + 0.001 * layer.weight.grad**2
        momentum = 0.9 * momentum + 0.1 * layer.weight.grad / (square / (1 - 0.999**step)).sqrt()
        weights = weights - 0.01 * momentum / (1 - 0.9**step)
        torch.testing.assert_close(layer.weight.detach(), weights)


def test_a_step_of_muon_is_an_orthogonal_matrix_and_biases_get_adamw():
    layer, other = nn.Linear(6, 4), nn.Linear(6, 4)
    other.load_state_dict(layer.state_dict())
    muon = optimizer_of(OptimizerConfig(kind="muon", lr=0.01, weight_decay=0.1))(layer)
    adamw = torch.optim.AdamW([other.bias], 0.01, weight_decay=0.0)
    decayed = layer.weight.detach() * (1 - 0.01 * 0.1)
    for mine, theirs in zip(layer.parameters(), other.parameters(), strict=True):
        mine.grad = torch.randn(mine.shape, generator=torch.Generator().manual_seed(0))
        theirs.grad = mine.grad.clone()
    muon.step()
    adamw.step()
    torch.testing.assert_close(layer.bias, other.bias)
    step = (decayed - layer.weight.detach()) / (0.01 * 0.2 * 6**0.5)  # the RMS of a step of AdamW
    assert layer.weight.grad is not None
    left, _, right = torch.linalg.svd(layer.weight.grad, full_matrices=False)
    assert ((torch.linalg.svdvals(step) - 1).abs() < 0.4).all(), "five iterations come near 1"
    assert torch.nn.functional.cosine_similarity(step.flatten(), (left @ right).flatten(), dim=0) > 0.97


def test_muon_computes_in_fp32_on_a_cpu():
    layer = nn.Linear(6, 4, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    x = layer.weight.grad.double() / layer.weight.grad.double().norm()
    for a, b, c in ORTHOGONALIZATION:
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    optimizer_of(OptimizerConfig(kind="muon", lr=0.01, weight_decay=0.0))(layer).step()
    step = (before - layer.weight.detach()) / (0.01 * 0.2 * 6**0.5)
    torch.testing.assert_close(step.double(), x, rtol=1e-4, atol=1e-4)  # in bf16, numbers are off by a hundredth


@pytest.mark.parametrize("size", [5.0, 1e-6])
def test_a_gradient_is_cut_to_a_share_of_its_own_parameter(size):
    large = nn.Parameter(torch.ones(4) * size / 2)  # norm: size
    small = nn.Parameter(torch.ones(4) * size / 2)
    large.grad, small.grad = torch.full((4,), 100.0), torch.full((4,), 1e-9)
    clip_adaptively([large, small, nn.Parameter(torch.ones(1))], 0.3)
    assert large.grad.norm().item() == pytest.approx(0.3 * max(size, MIN_NORM), rel=1e-5)
    assert small.grad.norm().item() == pytest.approx(2e-9, rel=1e-5)


@pytest.mark.parametrize("kind", ["adamw", "laprop", "muon"])
def test_moments_that_lie_otherwise_in_memory_are_those_of_the_same_entries(kind: Literal["adamw", "laprop", "muon"]):
    """As in a checkpoint of a run whose convolutions were not channels-last."""
    config = OptimizerConfig(kind=kind, lr=0.01)

    def step(layer: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        generator = torch.Generator().manual_seed(number)
        for p in layer.parameters():
            p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator))
        optimizer.step()

    first = nn.Conv2d(3, 4, 3)
    before = optimizer_of(config)(first)
    step(first, before, 0)
    second = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    second.load_state_dict(first.state_dict())
    after = optimizer_of(config)(second)
    after.load_state_dict(deepcopy(before.state_dict()))
    step(first, before, 1)
    step(second, after, 1)
    assert not second.weight.is_contiguous()
    torch.testing.assert_close(second.weight, first.weight)
