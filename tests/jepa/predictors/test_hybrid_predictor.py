"""The hybrid predictor: its stack equals Nemotron-H's, and its memory is exact, bounded, and knows the order."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import NemotronHConfig, NemotronHModel

from jepa.predictors.hybrid import HybridPredictor, HybridStack, HybridState
from jepa.testing import check_dynamics
from jepa.world_model import rollout

pytestmark = pytest.mark.usefixtures("one_thread")
D, A = 12, 4
SMALL: dict[str, Any] = {
    "hidden": 24,
    "heads": 4,
    "kv_heads": 2,
    "mamba_heads": 4,
    "mamba_head_dim": 8,
    "mamba_groups": 2,
    "mamba_state": 8,
    "chunk": 8,
}
KINDS = {"M": "linear_attention", "-": "mlp", "*": "full_attention"}
PUBLISHED = HybridPredictor.Config(  # Nemotron-H 8B
    pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
    hidden=4096,
    mlp_ratio=21504 / 4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    mamba_heads=128,
    mamba_head_dim=64,
    mamba_groups=8,
    mamba_state=128,
    chunk=128,
)


def make(grid: tuple[int, int] = (1, 1), **settings: Any) -> HybridPredictor:
    torch.manual_seed(0)
    predictor = HybridPredictor(HybridPredictor.Config(**SMALL | settings), D, A, grid).eval()
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return predictor


def inputs(predictor: HybridPredictor, steps: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(2, steps, predictor.tokens, D, generator=g), torch.randn(2, steps, A, generator=g)


def nemotron(config: HybridPredictor.Config) -> NemotronHConfig:
    return NemotronHConfig(
        vocab_size=4,
        hidden_size=config.hidden,
        layers_block_type=[KINDS[kind] for kind in config.pattern],
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim or config.hidden // config.heads,
        intermediate_size=round(config.hidden * config.mlp_ratio),
        ssm_state_size=config.mamba_state,
        mamba_num_heads=config.mamba_heads,
        mamba_head_dim=config.mamba_head_dim,
        n_groups=config.mamba_groups,
        chunk_size=config.chunk,
        time_step_min=1e-9,  # transformers cuts dt at it in the scan, and not in single steps
    )


def copied(ours: HybridStack, theirs: NemotronHModel) -> None:
    """Our weights into theirs."""
    state = {"embeddings.weight": theirs.embeddings.weight, "norm_f.weight": ours.norm.weight}
    names = {
        "skip": "D",
        "norm_weight": "norm.weight",
        "up.weight": "up_proj.weight",
        "down.weight": "down_proj.weight",
    }
    for number, (norm, mixer) in enumerate(zip(ours.norms, ours.mixers, strict=True)):
        layer = f"layers.{number}"
        state[f"{layer}.norm.weight"] = norm.weight
        for name, value in mixer.state_dict().items():
            if name == "qkv.weight":
                sizes = [count * mixer.head_dim for count in (mixer.heads, mixer.kv_heads, mixer.kv_heads)]
                for letter, weight in zip("qkv", value.split(sizes), strict=True):
                    state[f"{layer}.mixer.{letter}_proj.weight"] = weight
            elif name == "out_proj.weight" and hasattr(mixer, "qkv"):
                state[f"{layer}.mixer.o_proj.weight"] = value
            elif name.startswith("conv_"):
                part = name.removeprefix("conv_")
                state[f"{layer}.mixer.conv1d.{part}"] = value.T[:, None] if part == "weight" else value
            else:
                state[f"{layer}.mixer.{names.get(name, name)}"] = value
    theirs.load_state_dict(state)


@pytest.mark.parametrize("pattern", ["M-M*-M-", "*-M*-", "M", "*"])
@torch.no_grad()
def test_the_stack_equals_nemotron_h_of_transformers(pattern: str) -> None:
    predictor = make(pattern=pattern)
    theirs = NemotronHModel(nemotron(predictor.config)).eval()
    copied(predictor.stack, theirs)
    x = torch.randn(2, 21, 24)
    found, _ = predictor.stack(x, predictor.stack.initial_memories(x), mask=predictor._mask(21, x.device))
    torch.testing.assert_close(found, theirs(inputs_embeds=x, use_cache=False).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_the_published_sizes_give_the_parameters_of_nemotron_h_8b() -> None:
    with torch.device("meta"):
        ours, theirs = HybridStack(PUBLISHED), NemotronHModel(nemotron(PUBLISHED))
    size, expected = (sum(p.numel() for p in model.parameters()) for model in (ours, theirs))
    assert size == expected - theirs.embeddings.weight.numel()
    assert size + 2 * 131072 * 4096 == pytest.approx(8.1e9, rel=0.01)  # with words in and out


CASES = [
    ({}, (1, 1)),
    ({"pattern": "M-*-M", "window": 3}, (2, 3)),
    ({"pattern": "*-*-"}, (1, 1)),
    ({"pattern": "*-*-", "window": 3}, (2, 2)),
    ({"pattern": "M-M-", "layer_norm_out": True}, (2, 2)),
    ({"pattern": "M*", "mamba_conv": 1, "head_dim": 4, "kv_heads": 1}, (1, 1)),
]


@pytest.mark.parametrize(("settings", "grid"), CASES)
@torch.no_grad()
def test_steps_equal_the_whole_pass_whatever_was_seen_before(settings: dict[str, Any], grid: tuple[int, int]) -> None:
    predictor = make(grid, **settings)
    z, actions = inputs(predictor, 13)
    whole = predictor.parallel(z, actions)
    for seen in (1, 2, 7):
        state = predictor.initial_state(z[:, :seen], actions[:, : seen - 1])
        for t in range(seen - 1, 13):  # what was seen takes the place of what was imagined
            state = HybridState(state.memories, state.past, state.steps, z[:, t])
            state, next_latent = predictor.step(state, actions[:, t])
            torch.testing.assert_close(next_latent.mean(), whole[:, t], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("settings", "grid"), CASES)
def test_it_keeps_the_contract(settings: dict[str, Any], grid: tuple[int, int]) -> None:
    predictor = make(grid, **settings)
    sizes = {"tokens": predictor.tokens, "width": D, "action_size": A}
    check_dynamics(predictor, **sizes, parallel=predictor.parallel, tolerance=2e-5)


@pytest.mark.parametrize(("settings", "grid"), CASES)
def test_the_future_leaks_nothing_and_every_weight_learns(settings: dict[str, Any], grid: tuple[int, int]) -> None:
    predictor = make(grid, **settings)
    z, actions = inputs(predictor, 13)
    latents, moves = z.clone(), actions.clone()
    latents[:, 8:] += 1.0
    moves[:, 7:] += 1.0
    before, after = predictor.parallel(z, actions), predictor.parallel(latents, moves)
    assert torch.equal(before[:, :7], after[:, :7]) and (before[:, 7:] != after[:, 7:]).any(-1).all()
    before.square().mean().backward()
    assert [name for name, p in predictor.named_parameters() if p.grad is None or not p.grad.any()] == []


def sizes_and_flops(predictor: HybridPredictor, steps: int) -> tuple[list[int], list[int]]:
    """Of the state after each step, and of the step."""
    z, actions = inputs(predictor, steps)
    state, sizes, flops = predictor.initial_state(z[:, :1], actions[:, :0]), [], []
    for t in range(steps):
        # The fused attention of CPUs is not known to the counter; the plain one computes the same.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            state, _ = predictor.step(state, actions[:, t])
        sizes.append(state.nbytes())
        flops.append(counter.get_total_flops())
    return sizes, flops


@pytest.mark.parametrize(
    ("settings", "constant_from"), [({"pattern": "M-M-"}, 0), ({"pattern": "M*-", "window": 3}, 2)]
)
@torch.no_grad()
def test_neither_the_state_nor_a_step_grows_with_what_was_seen(settings: dict[str, Any], constant_from: int) -> None:
    sizes, flops = sizes_and_flops(make(**settings), 40)
    assert len(set(sizes[constant_from:])) == len(set(flops[constant_from:])) == 1 and flops[0] > 0


@torch.no_grad()
def test_the_work_of_a_pass_is_that_of_the_docstrings() -> None:
    predictor = make((2, 2), pattern="M-*")
    z, actions = inputs(predictor, 6)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        predictor.parallel(z, actions)
    width, inner, groups, state, chunk, heads, tokens = 24, 32, 2, 8, 8, 4, 24
    mamba = 2 * width * (2 * inner + 2 * groups * state + heads) + 2 * inner * width
    mamba += 2 * chunk * (groups * state + inner) + 4 * inner * state
    attention = 2 * width * 6 * (2 * 4 + 2 * 2) + 4 * tokens * 4 * 6
    token = mamba + 16 * width**2 + attention + 2 * width * (2 * D + A)
    assert counter.get_total_flops() == 2 * tokens * token


@torch.no_grad()
def test_attention_without_a_window_grows_by_the_same_each_step() -> None:
    sizes, flops = sizes_and_flops(make(pattern="M*-"), 6)
    grown = [later - earlier for earlier, later in itertools.pairwise(sizes)]
    assert set(grown) == {2 * 2 * 2 * 6 * 4} and flops[-1] > flops[0]  # k and v, 2 rows, 2 heads of 6, 4 bytes


@pytest.mark.parametrize("pattern", ["M-M-", "M*-", "*-"])
@torch.no_grad()
def test_the_order_of_what_was_seen_matters_and_without_mamba_that_is_due_to_positions(
    pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = make(pattern=pattern)
    z, actions = inputs(predictor, 5)
    order = [2, 0, 1, 3, 4]

    def change() -> float:
        straight, other = predictor.parallel(z, actions), predictor.parallel(z[:, order], actions[:, order])
        return (straight - other)[:, -1].abs().max().item()

    assert change() > 1e-3
    monkeypatch.setattr(predictor, "ordered", True)  # as if a Mamba layer were there: no positions
    assert (change() < 1e-5) is ("M" not in pattern)


@torch.no_grad()
def test_what_is_older_than_the_window_is_hidden_from_attention_and_not_from_mamba() -> None:
    for pattern, reached in (("*-", {0, 1}), ("*-*", {0, 1, 2}), ("M-", {0, 1, 2, 3, 4, 5})):
        predictor = make(pattern=pattern, window=2)
        z, actions = inputs(predictor, 6)
        other = z.clone()
        other[:, 0] += 1.0
        change = (predictor.parallel(z, actions) - predictor.parallel(other, actions)).abs().amax((0, 2, 3))
        assert set(change.nonzero().flatten().tolist()) == reached
        assert predictor.context == (None if "M" in pattern else 2)


@torch.no_grad()
def test_a_fresh_predictor_hardly_changes_the_latent() -> None:
    torch.manual_seed(0)
    predictor = HybridPredictor(HybridPredictor.Config(), D, A)
    z = torch.randn(3, 1, 1, D)
    change = (
        rollout(predictor, predictor.initial_state(z, torch.zeros(3, 0, A)), torch.randn(3, 2, 5, A)) - z[:, :, None]
    )
    assert 0 < change.std() < 0.8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "MX-"}, r"pattern: expected letters M .*found 'MX-'"),
        ({"pattern": ""}, "pattern: expected letters"),
        ({"pattern": "--"}, "has no memory; add M or"),
        ({"heads": 4, "kv_heads": 3}, "kv_heads: 4 heads do not divide into 3"),
        ({"heads": 5, "kv_heads": 5}, "heads: hidden 24 does not divide into 5; give head_dim"),
        ({"mamba_groups": 3}, "mamba_groups: 4 heads do not divide into 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HybridPredictor.Config(**SMALL | settings)


def test_states_and_latents_of_another_size_are_refused() -> None:
    predictor = make((2, 2))
    z, actions = inputs(predictor, 3)
    with pytest.raises(ValueError, match="reads no states, found 2"):
        predictor.initial_state(z, actions[:, :2], torch.zeros(2, 3, 2))
    with pytest.raises(ValueError, match=r"reads latents \[4, 12\], found \[3, 12\]"):
        predictor.parallel(z[:, :, :3], actions)
