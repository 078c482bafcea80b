"""The conditional diffusion transformer: sizes and work as published, what it reads, and that noise decides."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jepa.predictors.cdit import CDiT, further_noise
from jepa.testing import check_dynamics
from jepa.transformer import AdaptiveBlock
from jepa.world_model import advance, rollout

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTH, ACTION, GRID, HIDDEN, DEPTH = 6, 3, (2, 2), 16, 2
SMALL: dict[str, Any] = {"hidden": HIDDEN, "depth": DEPTH, "heads": 2, "context": 3, "steps": 4, "point": "mode"}
PUBLISHED: dict[str, Any] = {"prediction": "epsilon_learned_range", "point": "mode", "steps": 5}


def make(*, fresh: bool = False, **settings: Any) -> CDiT:
    torch.manual_seed(0)
    predictor = CDiT(CDiT.Config(**SMALL | settings), WIDTH, ACTION, GRID).eval()
    with torch.no_grad():
        for parameter in [] if fresh else predictor.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return predictor


def inputs(steps: int = 5) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(2, steps, 4, WIDTH, generator=g), torch.randn(2, steps, ACTION, generator=g)


@pytest.mark.parametrize(
    ("sizes", "published"),
    [
        ((384, 12, 6), 49.2e6),
        ((768, 12, 12), 195.3e6),
        ((1024, 24, 16), 686.5e6),
        ((1152, 28, 16), 1_011_959_456),
    ],
)
def test_it_has_the_published_parameters(sizes: tuple[int, int, int], published: float) -> None:
    """Of NWM: 196 tokens of 16 numbers (2 x 2 patches of 4 channels), 4 latents of context, dx, dy and yaw."""
    config = CDiT.Config(**dict(zip(("hidden", "depth", "heads"), sizes, strict=True)), **PUBLISHED)
    with torch.device("meta"):
        count = sum(p.numel() for p in CDiT(config, 16, 3, (14, 14)).parameters())
    assert count == published if isinstance(published, int) else count == pytest.approx(published, abs=0.05e6)


@pytest.mark.parametrize("settings", [{}, PUBLISHED])
@torch.no_grad()
def test_a_fresh_network_gives_exactly_zero(settings: dict[str, Any]) -> None:
    predictor = make(fresh=True, **settings)
    z, actions = inputs()
    given = predictor._given(z[:, :3], actions[:, 2])
    assert not predictor.net(z[:, 3], torch.tensor([0, 999]), *given).any()
    assert not predictor.parallel(z, actions).any()


@pytest.mark.parametrize("settings", [{}, {"point": "mean", "context": 1, "normalize_actions": False}, PUBLISHED])
def test_it_keeps_the_contract(settings: dict[str, Any]) -> None:
    predictor = make(**settings)
    sizes = {"tokens": 4, "width": WIDTH, "action_size": ACTION}
    tolerance = 2e-3 if settings is PUBLISHED else 2e-5  # noise estimates are multiplied by 158 at the last level
    check_dynamics(predictor, **sizes, parallel=predictor.parallel, tolerance=tolerance)


@pytest.mark.parametrize("noise", [None, torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(2))])
@torch.no_grad()
def test_each_latent_of_the_window_and_the_action_matter_and_no_earlier_latent(noise: Tensor | None) -> None:
    predictor = make()
    z, actions = inputs()

    def drawn(z: Tensor, action: Tensor) -> Tensor:
        return advance(predictor, predictor.initial_state(z, actions[:, 1:]), action, noise)[1]

    before = drawn(z, actions[:, 0])
    for age in range(5):
        changed = z.clone()
        changed[:, -1 - age] += 1
        assert torch.equal(drawn(changed, actions[:, 0]), before) == (age >= 3)
    assert not torch.equal(drawn(z, actions[:, 0] + 0.1), before)


@torch.no_grad()
def test_time_ahead_matters() -> None:
    predictor = make()
    _, actions = inputs()
    one, four = (predictor.net.condition(actions[:, 0], torch.full((2,), ahead)) for ahead in (1.0, 4.0))
    assert (one - four).abs().max() > 1e-3


@torch.no_grad()
def test_before_an_episode_its_first_latent_stands_again() -> None:
    z, _ = inputs()
    windows = make().windows(z)
    assert windows.shape == (2, 5, 3, 4, WIDTH)
    torch.testing.assert_close(windows[:, 0], z[:, :1].expand(-1, 3, -1, -1))
    torch.testing.assert_close(windows[:, 1], z[:, [0, 0, 1]])
    torch.testing.assert_close(windows[:, 4], z[:, 2:5])


@pytest.mark.parametrize("settings", [{}, PUBLISHED])
@torch.no_grad()
def test_the_same_noise_gives_the_same_future_and_a_cold_draw_is_the_point(settings: dict[str, Any]) -> None:
    predictor = make(**settings)
    z, actions = inputs()
    state = predictor.initial_state(z, actions[:, 1:])
    plans, noise = torch.randn(2, 3, 4, ACTION), torch.randn(2, 3, 4, 4, WIDTH)
    first = rollout(predictor, state, plans, noise)
    assert torch.equal(first, rollout(predictor, state, plans, noise))
    assert not torch.allclose(first, rollout(predictor, state, plans, noise + 0.1), atol=1e-2)
    cold = advance(predictor, state, actions[:, 0], noise[:, 0, 0], 1e-12)[1]
    torch.testing.assert_close(cold, advance(predictor, state, actions[:, 0])[1], atol=1e-3, rtol=1e-3)


def test_a_draw_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = make()
    z, actions = inputs()
    draws, draw = [], predictor.draw
    monkeypatch.setattr(predictor, "draw", lambda *given: draws.append(given) or draw(*given))
    after, drawn = advance(
        predictor, predictor.initial_state(z, actions[:, 1:]), actions[:, 0], torch.randn(2, 4, WIDTH)
    )
    assert len(draws) == 1 and torch.equal(after.z[:, -1], drawn)  # pyright: ignore


def test_further_noise_is_standard_normal_and_independent() -> None:
    noise = torch.randn(50, 20, 10, generator=torch.Generator().manual_seed(0))
    all_noise = torch.cat((noise[None], further_noise(noise, 5))).flatten(1)
    assert all_noise.mean(1).abs().max() < 0.04 and (all_noise.std(1) - 1).abs().max() < 0.03
    assert (torch.corrcoef(all_noise) - torch.eye(6)).abs().max() < 0.04


@pytest.mark.parametrize("settings", [{}, PUBLISHED])
def test_the_loss_draws_from_the_generator_alone_and_trains_every_weight(settings: dict[str, Any]) -> None:
    predictor = make(**settings)
    z, actions = inputs()
    losses = [predictor.loss(z, actions[:, 1:], torch.Generator().manual_seed(3)) for _ in range(2)]
    assert losses[0].terms["prediction"].equal(losses[1].terms["prediction"])
    assert losses[0].predicted.shape == (2, 4, 4, WIDTH)
    z.requires_grad_()
    predictor.loss(z, actions[:, 1:], torch.Generator()).terms["prediction"].backward()
    assert z.grad is not None and not z.grad[:, -1].any()  # the last latent is a target only
    assert [name for name, p in predictor.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_training_learns_the_scale_of_latents() -> None:
    predictor = make().train()
    g = torch.Generator().manual_seed(0)
    scale, shift = torch.rand(WIDTH, generator=g) * 5 + 0.1, torch.randn(WIDTH, generator=g)
    for _ in range(20):
        z = torch.randn(32, 3, 4, WIDTH, generator=g) * scale + shift
        predictor.loss(z, torch.zeros(32, 2, ACTION), g)
    torch.testing.assert_close(predictor.scale_latents.std, scale, rtol=0.05, atol=0)
    torch.testing.assert_close(predictor.scale_latents.mean, shift, rtol=0, atol=0.2)
    before = predictor.scale_latents.std.clone()
    predictor.eval().loss(3 * z, torch.zeros(32, 2, ACTION), g)
    assert torch.equal(predictor.scale_latents.std, before)


def flops(net: nn.Module, *inputs: Tensor) -> int:
    # The fused attention of CPUs is not known to the counter; the plain one computes the same.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        net(*inputs)
    return counter.get_total_flops()


class DiT(nn.Module):
    """DiT's blocks over the tokens of context and target together."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AdaptiveBlock(HIDDEN, 2) for _ in range(DEPTH))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self.blocks:
            assert isinstance(block, AdaptiveBlock)
            x = block.step(x, None, lambda key, value: (key, value), condition=condition)
        return x


@torch.no_grad()
def test_work_grows_linearly_with_the_context_and_that_of_dit_quadratically() -> None:
    n, d = 4, HIDDEN
    ours, dits = [], []
    for m in range(1, 6):
        net = make(context=m).net
        condition = torch.randn(1, d)
        x, t, context = torch.randn(1, n, WIDTH), torch.tensor([5]), torch.randn(1, m * n, d)
        ours.append(flops(net, x, t, context, condition))
        around = 2 * n * d * 2 * WIDTH + 2 * (256 * d + d * d) + 4 * d * d  # embed, out, time, the last modulation
        block = 28 * n * d**2 + 4 * n**2 * d + 22 * d**2 + 4 * n * d + m * (4 * n * d**2 + 4 * n**2 * d)
        assert ours[-1] == DEPTH * block + around
        dits.append(flops(DiT(), torch.randn(1, (m + 1) * n, d), condition[:, None]))
        tokens = (m + 1) * n
        assert dits[-1] == DEPTH * (24 * tokens * d**2 + 4 * tokens**2 * d + 12 * d**2)
    assert not torch.tensor(ours).diff(n=2).any()
    assert (torch.tensor(dits).diff(n=2) == DEPTH * 8 * n**2 * d).all()


@torch.no_grad()
def test_a_draw_takes_as_many_evaluations_as_it_says() -> None:
    z, actions = inputs()
    for settings, noise, expected in (
        ({"steps": 4}, None, 4),
        ({"steps": 4, "point": "mean"}, None, 1),
        ({"steps": 4, "point": "mean"}, torch.randn(2, 4, WIDTH), 4),
        (PUBLISHED, torch.randn(2, 4, WIDTH), 5),
    ):
        predictor, evaluations = make(**settings), []
        predictor.net.register_forward_hook(lambda *_, count=evaluations: count.append(1))
        predictor.draw(z[:, :3], actions[:, 0], noise)
        assert len(evaluations) == expected


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden 10 does not divide into 4"):
        CDiT.Config(hidden=10, heads=4)
    with pytest.raises(ValueError, match="point: mean needs prediction x0"):
        CDiT.Config(prediction="epsilon_learned_range", point="mean")
    with pytest.raises(ValueError, match="hidden: expected 17 or more"):
        CDiT(CDiT.Config(**SMALL), WIDTH, 17)
