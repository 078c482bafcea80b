"""The MDN-RNN: its density is torch.distributions', its size the paper's, and temperature does what it says."""

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from jepa.predictors.mdn_rnn import MDNRNN, MixtureLatent
from jepa.world_model import advance, rollout

WIDTH, ACTION = 6, 3


def make(**settings) -> MDNRNN:
    torch.manual_seed(0)
    return MDNRNN(MDNRNN.Config(**{"hidden": 16} | settings), WIDTH, ACTION, grid=(1, 2)).eval()


def mixture(**changes) -> MixtureLatent:
    g = torch.Generator().manual_seed(0)
    logits, means, std = torch.randn(3, 4, 2, WIDTH, 5, generator=g)
    return MixtureLatent(**{"logits": logits, "means": means, "std": std.exp()} | changes)


def bimodal(rows: int, std: float = 0.05) -> MixtureLatent:
    """0.7 at -1 and 0.3 at 1."""
    logits = torch.tensor([0.7, 0.3]).log().expand(rows, 1, 1, 2)
    return MixtureLatent(logits, torch.tensor([-1.0, 1.0]).expand_as(logits), torch.full_like(logits, std))


def test_the_density_is_that_of_torch_distributions() -> None:
    latent, z = mixture(), torch.randn(4, 2, WIDTH)
    oracle = MixtureSameFamily(Categorical(logits=latent.logits), Normal(latent.means, latent.std))
    torch.testing.assert_close(latent.log_prob(z), oracle.log_prob(z).sum((-1, -2)), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(latent.mean(), oracle.mean)


def test_the_loss_is_the_mean_negative_log_density_of_true_next_latents() -> None:
    predictor = make()
    z, actions = torch.randn(3, 4, 2, WIDTH), torch.randn(3, 3, ACTION)
    loss = predictor.loss(z, actions, torch.Generator()).terms["prediction"]
    densities = []
    for seen in range(1, 4):
        state = predictor.initial_state(z[:, :seen], actions[:, : seen - 1])
        densities.append(predictor.step(state, actions[:, seen - 1])[1].log_prob(z[:, seen]))
    torch.testing.assert_close(loss, -torch.stack(densities).mean() / (2 * WIDTH))


def test_targets_get_no_gradient() -> None:
    z = torch.randn(2, 3, 2, WIDTH, requires_grad=True)
    make().loss(z, torch.randn(2, 2, ACTION), torch.Generator()).terms["prediction"].backward()
    assert z.grad is not None
    assert (z.grad[:, -1] == 0).all() and (z.grad[:, :-1].abs().sum((-1, -2)) > 0).all()


def test_its_size_is_the_papers() -> None:
    def count(**sizes: int) -> int:
        return sum(p.numel() for p in predictor_of(**sizes).parameters())

    def predictor_of(width: int, action: int, hidden: int) -> MDNRNN:
        return MDNRNN(MDNRNN.Config(hidden=hidden), width, action)

    assert count(width=32, action=3, hidden=256) == 422_368  # CarRacing
    # Doom: an action and whether an episode begins; the paper adds an output that tells its end
    assert count(width=64, action=2, hidden=512) + 513 == 1_678_785


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_have_the_shares_and_deviations_of_the_temperature(temperature: float) -> None:
    latent = bimodal(40_000)
    noise = torch.randn(40_000, 1, 1, generator=torch.Generator().manual_seed(0))
    drawn = latent.sample(noise, temperature)
    share = 0.3 ** (1 / temperature) / (0.3 ** (1 / temperature) + 0.7 ** (1 / temperature))
    assert (drawn > 0).float().mean().item() == pytest.approx(share, abs=0.01)
    for side in (drawn[drawn > 0], drawn[drawn < 0]):
        assert side.std().item() == pytest.approx(0.05 * temperature**0.5, rel=0.05)
        assert abs(side.mean().item()) == pytest.approx(1, abs=0.005)


def test_draws_follow_the_distribution_of_the_mixture() -> None:
    """The Kolmogorov-Smirnov distance of 40,000 draws to the mixture's distribution function."""
    latent = mixture()
    row = MixtureLatent(*(x[:1, :1, :1].expand(40_000, 1, 1, 5) for x in (latent.logits, latent.means, latent.std)))
    drawn = row.sample(torch.randn(40_000, 1, 1, generator=torch.Generator().manual_seed(0))).flatten().sort().values
    oracle = MixtureSameFamily(Categorical(logits=row.logits[0, 0, 0]), Normal(row.means[0, 0, 0], row.std[0, 0, 0]))
    expected = (torch.arange(40_000) + 0.5) / 40_000
    assert (oracle.cdf(drawn) - expected).abs().max() < 1.95 / 40_000**0.5  # passes with 99.9 %


def test_a_cold_draw_is_the_mean_of_the_most_likely_gaussian_and_spread_grows_with_temperature() -> None:
    latent = mixture()
    noise = torch.randn(4, 2, WIDTH)
    mode = mixture(point="mode").mean()
    torch.testing.assert_close(latent.sample(noise, 1e-6), mode, atol=0.02, rtol=0)
    many = MixtureLatent(*(x.repeat(500, 1, 1, 1) for x in (latent.logits, latent.means, latent.std)))
    noise = torch.randn(2000, 2, WIDTH, generator=torch.Generator().manual_seed(1))
    spread = [many.sample(noise, t).unflatten(0, (500, 4)).std(0).mean().item() for t in (0.1, 0.5, 1.0, 2.0)]
    assert spread == sorted(spread) and spread[0] < 0.7 * spread[-1]


def test_extreme_noise_gives_finite_draws() -> None:
    noise = torch.full((4, 2, WIDTH), 40.0)
    for temperature in (1e-3, 1.0, 100.0):
        assert mixture().sample(noise, temperature).isfinite().all()
        assert mixture().sample(-noise, temperature).isfinite().all()


def test_what_is_drawn_is_what_the_state_goes_on_from_at_every_temperature() -> None:
    predictor = make()
    state = predictor.initial_state(torch.randn(3, 2, 2, WIDTH), torch.randn(3, 1, ACTION))
    noise = torch.randn(3, 2, WIDTH)
    for temperature in (0.2, 1.0, 3.0):
        after, z = advance(predictor, state, torch.randn(3, ACTION), noise, temperature)
        torch.testing.assert_close(after.z, z)


def test_the_same_noise_gives_the_same_rollout_and_none_is_drawn_without() -> None:
    predictor = make()
    state = predictor.initial_state(torch.randn(3, 1, 2, WIDTH), torch.randn(3, 0, ACTION))
    plans, noise = torch.randn(3, 2, 4, ACTION), torch.randn(3, 2, 4, 2, WIDTH)
    assert torch.equal(rollout(predictor, state, plans, noise), rollout(predictor, state, plans, noise))
    torch.manual_seed(1)
    first = rollout(predictor, state, plans)
    torch.manual_seed(2)
    assert torch.equal(first, rollout(predictor, state, plans))
    assert not torch.equal(first, rollout(predictor, state, plans, noise))


def test_gradients_of_a_draw_reach_the_actions() -> None:
    predictor = make()
    state = predictor.initial_state(torch.randn(3, 1, 2, WIDTH), torch.randn(3, 0, ACTION))
    plans = torch.randn(3, 2, 4, ACTION, requires_grad=True)
    rollout(predictor, state, plans, torch.randn(3, 2, 4, 2, WIDTH)).square().sum().backward()
    assert plans.grad is not None and plans.grad.isfinite().all() and (plans.grad.abs().sum(-1) > 0).all()


@pytest.mark.parametrize(("gaussians", "expected"), [(5, -0.967), (1, 1.335)])
def test_it_learns_two_futures_as_well_as_the_entropy_allows(gaussians: int, expected: float) -> None:
    """0.7 at 1 and 0.3 at -1, deviation .05: nats a number of the truth itself, and of its best single Gaussian."""
    torch.manual_seed(0)
    predictor = MDNRNN(MDNRNN.Config(hidden=8, gaussians=gaussians, min_std=1e-3), 1, 1)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():  # means far apart, so that each finds a future of its own
        predictor.output.bias[gaussians : 2 * gaussians] = torch.linspace(-1.5, 1.5, gaussians)

    def data(count: int) -> torch.Tensor:
        side = (torch.rand(count, 4, 1, 1, generator=g) < 0.7) * 2.0 - 1
        return side + 0.05 * torch.randn(side.shape, generator=g)

    optimizer = torch.optim.Adam(predictor.parameters(), 0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
        optimizer.zero_grad()
        z = data(256)
        predictor.loss(z, torch.zeros(len(z), 3, 1), g).terms["prediction"].backward()
        optimizer.step()
        scheduler.step()
    z = data(4000)
    with torch.no_grad():
        nll = predictor.loss(z, torch.zeros(len(z), 3, 1), g).terms["prediction"].item()
    assert math.isclose(nll, expected, abs_tol=0.06)
