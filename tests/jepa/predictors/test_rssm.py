"""The RSSM: resets, gradients of its losses, its draws, and its published sizes. Oracles are in test_rssm_oracle.py."""

import pytest
import torch

from jepa.predictors.rssm import RSSM, UNIMIX, draw, kl_terms, point, probabilities, uniforms
from jepa.world_model import advance, rollout

WIDTH, ACTION = 6, 3
SMALL = {"recurrent_size": 24, "hidden": 16, "blocks": 4, "categoricals": 5, "classes": 4}


def make(**settings) -> RSSM:
    torch.manual_seed(0)
    model = RSSM(RSSM.Config(**SMALL | settings), WIDTH, ACTION, grid=(1, 2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def clip(steps: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(3, steps, 2, WIDTH, generator=g), torch.randn(3, steps - 1, ACTION, generator=g)


@torch.no_grad()
def test_a_reset_in_the_middle_equals_a_fresh_start() -> None:
    model, (z, actions) = make(), clip(6)
    first = torch.zeros(3, 6, dtype=torch.bool)
    first[1, 3] = True
    whole = model.observe(z, actions, first=first)
    fresh = model.observe(z[:, 3:], actions[:, 3:])
    kept = model.observe(z, actions)
    torch.testing.assert_close(whole.h[1, 3:], fresh.h[1], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(whole.posterior[1, 3:], fresh.posterior[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.h[[0, 2]], kept.h[[0, 2]])
    assert (whole.h[1, 3:] - kept.h[1, 3:]).abs().amax(-1).gt(1e-3).all()


def test_equal_distributions_cost_the_free_nats_and_have_no_gradient() -> None:
    logits = torch.randn(4, 5, 4)
    q, p = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    dynamics, representation = kl_terms(q, p, 1.0)
    assert dynamics.item() == representation.item() == 1.0
    (dynamics + representation).backward()
    assert q.grad is not None and p.grad is not None
    assert not q.grad.any() and not p.grad.any()


def test_each_kl_term_trains_one_side_alone() -> None:
    for which, trained in ((0, 1), (1, 0)):
        sides = tuple(5 * x for x in torch.randn(2, 4, 5, 4))
        sides = tuple(side.requires_grad_() for side in sides)
        kl_terms(sides[0], sides[1], 1.0)[which].backward()
        assert sides[1 - trained].grad is None or not sides[1 - trained].grad.any()
        assert sides[trained].grad is not None and sides[trained].grad.any()


def test_the_kl_of_each_clip_and_step_is_cut_by_itself() -> None:
    q = torch.stack([torch.zeros(1, 4), torch.tensor([[9.0, 0, 0, 0]])])
    p = torch.zeros(2, 1, 4)
    apart = kl_terms(q[1:], p[1:], 0.0)[0].item()
    assert apart > 1
    assert kl_terms(q, p, 1.0)[0].item() == pytest.approx((1 + apart) / 2)


def test_no_class_is_impossible() -> None:
    shares = probabilities(100 * torch.randn(50, 8))
    assert shares.min() >= UNIMIX / 8 * (1 - 1e-6)
    torch.testing.assert_close(shares.sum(-1), torch.ones(50))


def test_draws_are_one_hot_have_the_shares_and_pass_gradients_straight_through() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0]).expand(20_000, 3).clone().requires_grad_()
    drawn = draw(logits, torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(drawn.sum(-1), torch.ones(20_000))
    assert ((drawn.abs() < 1e-6) | ((drawn - 1).abs() < 1e-6)).all()
    torch.testing.assert_close(drawn.mean(0), probabilities(logits[0]), atol=0.015, rtol=0)
    weight = torch.tensor([1.0, 2.0, 4.0])
    (drawn * weight).sum().backward()
    expected = torch.autograd.functional.jacobian(lambda x: (probabilities(x) * weight).sum(), logits[0].detach())
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[0], expected)


def test_uniform_numbers_made_from_noise_are_uniform_independent_and_repeatable() -> None:
    noise = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    numbers = uniforms(noise, 7)
    assert torch.equal(numbers, uniforms(noise, 7))
    assert numbers.min() >= 0 and numbers.max() <= 1
    expected = (torch.arange(20_000) + 0.5) / 20_000
    distance = (numbers.sort(0).values - expected[:, None]).abs().amax(0)
    assert (distance < 1.95 / 20_000**0.5).all()  # Kolmogorov-Smirnov, 99.9 %
    correlation = torch.corrcoef(numbers.T) - torch.eye(7)
    assert correlation.abs().max() < 0.03


def test_the_mode_is_the_most_likely_class_and_the_mean_its_probabilities() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    assert point(logits, "mode").round().tolist() == [[0, 1, 0]]
    torch.testing.assert_close(point(logits, "mean"), probabilities(logits))


def test_the_loss_is_made_of_its_terms_and_targets_get_no_gradient_from_the_emission() -> None:
    model, (z, actions) = make(dynamics_weight=0.7, representation_weight=0.2), clip()
    z = z.requires_grad_()
    terms = model.loss(z, actions, torch.Generator().manual_seed(0)).terms
    total = terms["emission"] + (0.7 * terms["dynamics_kl"] + 0.2 * terms["representation_kl"]) / (2 * WIDTH)
    torch.testing.assert_close(terms["prediction"], total)
    h, s = torch.zeros(1, 24), torch.zeros(1, 5, 4)
    with torch.no_grad():  # an emission that reads nothing: what is left of its gradient would be the target's
        model.emission[0].weight.zero_()
    (gradient,) = torch.autograd.grad(
        model.loss(z, actions, torch.Generator().manual_seed(0)).terms["emission"], z, allow_unused=True
    )
    assert model.emit(h, s).isfinite().all() and (gradient is None or not gradient.any())


def test_training_draws_from_its_generator_alone() -> None:
    model, (z, actions) = make(), clip()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(losses))
        losses.append(model.loss(z, actions, torch.Generator().manual_seed(seed)).terms["prediction"].item())
    assert losses[0] == losses[1] != losses[2]


def test_what_is_drawn_is_what_the_state_goes_on_from_at_every_temperature() -> None:
    model, (z, actions) = make(), clip()
    state = model.initial_state(z, actions)
    noise = torch.randn(3, 2, WIDTH)
    for temperature in (0.2, 1.0, 3.0):
        after, latent = advance(model, state, actions[:, 0], noise, temperature)
        torch.testing.assert_close(model.emit(after.h, after.s), latent)


@torch.no_grad()
def test_hot_draws_differ_more_than_cold_ones() -> None:
    model, (z, actions) = make(), clip()
    state = model.initial_state(z, actions).repeat(400)
    noise = torch.randn(1200, 2, WIDTH, generator=torch.Generator().manual_seed(0))
    action = actions[:, 0].repeat_interleave(400, 0)
    spread = []
    for temperature in (0.05, 1.0, 4.0):
        _, latent = advance(model, state, action, noise, temperature)
        spread.append(latent.unflatten(0, (3, 400)).std(1).mean().item())
    assert spread == sorted(spread) and spread[0] < 0.7 * spread[-1]


@torch.no_grad()
def test_nothing_is_drawn_without_noise() -> None:
    model, (z, actions) = make(), clip()
    state = model.initial_state(z, actions)
    plans = torch.randn(3, 2, 4, ACTION)
    assert torch.equal(rollout(model, state, plans), rollout(model, state, plans))
    noise = torch.randn(3, 2, 4, 2, WIDTH)
    assert torch.equal(rollout(model, state, plans, noise), rollout(model, state, plans, noise))


def test_raw_actions_are_cut_as_published_and_standardized_ones_are_not() -> None:
    action = torch.tensor([[0.5, -3.0, 1.0]])
    assert make(normalize_actions=False).embedded_action(action).tolist() == [[0.5, -1.0, 1.0]]
    torch.testing.assert_close(make().embedded_action(action), action)


def test_sizes_are_those_of_the_published_core() -> None:
    """DreamerV3's 12M: R 2048, hidden 256, 32 x 16, 8 blocks; each layer has weights, biases and an RMSNorm's scale."""
    config = RSSM.Config(recurrent_size=2048, hidden=256, classes=16)
    model = RSSM(config, 64, 6)
    embeds = sum(inputs * 256 + 2 * 256 for inputs in (2048, 512, 6))
    enter = (2048 // 8 + 3 * 256) * 2048 + 2 * 2048
    gates = 2048 // 8 * 3 * 2048 + 3 * 2048
    assert sum(p.numel() for p in model.core.parameters()) == embeds + enter + gates


def test_blocks_that_do_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match="recurrent_size: expected a multiple of the 7 blocks, found 24"):
        make(blocks=7)
