"""The Mamba-2 mixer equals transformers', and its scan equals the recurrence however it is cut."""

import pytest
import torch
from torch import Tensor
from transformers import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from jepa.predictors.networks.mamba2 import Mamba2, chunked_scan, recurrent_step

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH = 37  # no multiple of any chunk here


def randomized(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def mixer(chunk: int = 8, groups: int = 2) -> Mamba2:
    torch.manual_seed(0)
    made = Mamba2(24, heads=6, head_dim=8, state=16, groups=groups, chunk=chunk)
    randomized(made)
    return made


def scan_inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """x, log decays, B, C and a state; decays from hardly any to nearly all at once."""
    g = torch.Generator().manual_seed(0)
    x, b, c = (torch.randn(2, LENGTH, *size, generator=g) for size in ((6, 8), (2, 16), (2, 16)))
    log_decay = -torch.empty(2, LENGTH, 6).uniform_(-7, 3, generator=g).exp()
    state = torch.randn(2, 6, 8, 16, generator=g)
    return tuple(part.to(dtype) for part in (0.1 * x, log_decay, b, c, state))


def recurrence(x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """As in the paper, head by head and token by token."""
    rows = []
    share = x.shape[2] // b.shape[2]
    for t in range(x.shape[1]):
        heads, read = [], []
        for h in range(x.shape[2]):
            wrote = torch.einsum("bp,bm->bpm", x[:, t, h], b[:, t, h // share])
            heads.append(log_decay[:, t, h].exp()[:, None, None] * state[:, h] + wrote)
            read.append(torch.einsum("bpm,bm->bp", heads[-1], c[:, t, h // share]))
        state = torch.stack(heads, 1)
        rows.append(torch.stack(read, 1))
    return torch.stack(rows, 1), state


@pytest.mark.parametrize("groups", [1, 2, 3])
@torch.no_grad()
def test_the_mixer_equals_that_of_transformers(groups: int) -> None:
    ours = mixer(groups=groups)
    config = Mamba2Config(
        num_heads=6,
        head_dim=8,
        hidden_size=24,
        state_size=16,
        expand=2,
        n_groups=groups,
        chunk_size=16,
        num_hidden_layers=1,
    )
    theirs = Mamba2Mixer(config, layer_idx=0).eval()
    state = {name: value for name, value in ours.state_dict().items() if name.startswith(("in_", "out_", "A_", "dt_"))}
    state |= {"D": ours.skip, "norm.weight": ours.norm_weight}
    state |= {"conv1d.weight": ours.conv_weight.T[:, None], "conv1d.bias": ours.conv_bias}
    theirs.load_state_dict(state)
    x = torch.randn(2, LENGTH, 24)
    y, _ = ours(x, ours.initial_state(x))
    torch.testing.assert_close(y, theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 8, 16, 37, 64])
@torch.no_grad()
def test_the_scan_equals_the_recurrence_in_double_precision(chunk: int) -> None:
    expected, last = recurrence(*scan_inputs(torch.float64))
    y, state = chunked_scan(*scan_inputs(), chunk=chunk)
    assert (y - expected).abs().max() < 5e-6 and (state - last).abs().max() < 5e-6


@torch.no_grad()
def test_single_steps_equal_the_recurrence() -> None:
    x, log_decay, b, c, state = scan_inputs()
    expected, last = recurrence(*scan_inputs(torch.float64))
    for t in range(LENGTH):
        y, state = recurrent_step(x[:, t], log_decay[:, t], b[:, t], c[:, t], state)
        assert (y - expected[:, t]).abs().max() < 5e-6
    assert (state - last).abs().max() < 5e-6


def test_gradients_of_the_scan_are_those_of_the_recurrence() -> None:
    gradients = []
    for scan in (recurrence, lambda *inputs: chunked_scan(*inputs, chunk=8)):
        inputs = [part.requires_grad_() for part in scan_inputs(torch.float64)]
        y, state = scan(*inputs)
        gradients.append(torch.autograd.grad(y.square().sum() + state.sum(), inputs))
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("first", [1, 2, 20, 36])
@torch.no_grad()
def test_what_is_cut_in_two_continues_exactly_and_so_do_single_steps(first: int) -> None:
    model, x = mixer(), torch.randn(2, LENGTH, 24)
    start = model.initial_state(x)
    whole, last = model(x, start)
    head, memory = model(x[:, :first], start)
    tail, after = model(x[:, first:], memory)
    torch.testing.assert_close(torch.cat((head, tail), 1), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.ssm, last.ssm, atol=1e-5, rtol=1e-5)
    for t in range(first, LENGTH):
        y, memory = model(x[:, t : t + 1], memory)
        torch.testing.assert_close(y[:, 0], whole[:, t], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(memory.conv, last.conv, atol=1e-5, rtol=1e-5)
    assert memory.nbytes() == after.nbytes() == start.nbytes()


@torch.no_grad()
def test_the_future_leaks_nothing_into_the_past() -> None:
    model, x = mixer(), torch.randn(2, LENGTH, 24)
    other = x.clone()
    other[:, 20:] += 1.0
    y, z = (model(part, model.initial_state(part))[0] for part in (x, other))
    assert torch.equal(y[:, :20], z[:, :20]) and (y[:, 20:] != z[:, 20:]).any(-1).all()


@torch.no_grad()
def test_a_fresh_layer_forgets_within_tens_to_thousands_of_tokens() -> None:
    torch.manual_seed(0)
    model = Mamba2(8, heads=512, head_dim=4, state=4)
    lasting = 1 / (torch.nn.functional.softplus(model.dt_bias) * model.A_log.exp())  # tokens, without input
    assert lasting.min() > 0.6 and lasting.max() < 1001 and 10 < lasting.median() < 100


def test_under_autocast_the_state_stays_in_full_precision() -> None:
    model, x = mixer(), torch.randn(2, LENGTH, 24)
    expected, _ = model(x, model.initial_state(x))
    with torch.autocast("cpu", torch.bfloat16):
        y, memory = model(x, model.initial_state(x))
    assert y.dtype == torch.bfloat16 and memory.ssm.dtype == torch.float32
    assert (y - expected).norm() < 0.03 * expected.norm()
    y.float().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="6 Mamba heads do not divide into 4 groups"):
        Mamba2(24, heads=6, head_dim=8, state=16, groups=4)
