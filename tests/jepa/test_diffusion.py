"""Our samplers of diffusion equal diffusers' schedulers, and the loss of variances is what it says."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch.distributions import Normal, kl_divergence

from jepa import diffusion

SIZE = (3, 4, 5)


def levels(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


def normal(seed: int) -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", [1, 4, 8, 10, 20])
def test_ddim_equals_diffusers(steps: int) -> None:
    theirs = DDIMScheduler(
        beta_start=1e-4, beta_end=0.02, timestep_spacing="trailing", prediction_type="sample", clip_sample=False
    )
    theirs.set_timesteps(steps)
    times = diffusion.trailing_levels(steps)
    assert times == theirs.timesteps.tolist()
    ours = expected = normal(0)
    for number, (t, s) in enumerate(zip(times, [*times[1:], -1], strict=True)):
        estimate = normal(number + 1)
        ours = diffusion.ddim_step(ours, estimate, levels(t, t, t), levels(s, s, s))
        expected = theirs.step(estimate, t, expected).prev_sample  # pyright: ignore
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours, estimate, atol=1e-5, rtol=1e-5)  # the last step ends at the estimate


@pytest.mark.parametrize("steps", [2, 7, 250])
def test_ancestral_sampling_equals_diffusers(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = DDPMScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        variance_type="learned_range",
        timestep_spacing="linspace",
        prediction_type="epsilon",
        clip_sample=False,
    )
    theirs.set_timesteps(steps)
    times = diffusion.spread_levels(steps)
    assert times == theirs.timesteps.tolist()
    ours = expected = normal(0)
    for number, (t, s) in enumerate(zip(times, [*times[1:], -1], strict=True)):
        x = expected
        noise, epsilon, share = normal(3 * number + 1), normal(3 * number + 2), normal(3 * number + 3).clamp(-1, 1)
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, noise=noise, **k: noise)
        at, before = levels(t, t, t), levels(s, s, s)
        mean, deviation = diffusion.ancestral_step(x, diffusion.denoised(x, at, epsilon), share, at, before)
        ours = mean + deviation * noise
        expected = theirs.step(torch.cat((epsilon, share), 1), t, x).prev_sample  # pyright: ignore
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    assert not deviation.any()


def test_noising_equals_diffusers_and_is_undone() -> None:
    x0, noise, t = normal(0), normal(1), levels(0, 300, 999)
    theirs = DDPMScheduler(beta_start=1e-4, beta_end=0.02)
    x = diffusion.noised(x0, t, noise)
    torch.testing.assert_close(x, theirs.add_noise(x0, noise, t), atol=1e-5, rtol=1e-5)  # pyright: ignore
    torch.testing.assert_close(diffusion.denoised(x, t, noise)[:2], x0[:2], atol=1e-4, rtol=1e-4)


def test_the_bound_is_the_divergence_of_the_steps_and_trains_the_variance_alone() -> None:
    x0, x, t = normal(0), normal(1), levels(1, 40, 999)
    estimate, share = normal(2).requires_grad_(), normal(3).requires_grad_()
    bound = diffusion.variational_bound(x, x0, estimate, share, t)
    true_mean, true_variance = diffusion.posterior(x, x0, t, t - 1)
    mean, deviation = diffusion.ancestral_step(x, estimate, share, t, t - 1)
    expected = kl_divergence(Normal(true_mean, true_variance.sqrt()), Normal(mean, deviation)).mean() / math.log(2)
    torch.testing.assert_close(bound, expected, rtol=1e-4, atol=1e-4)
    bound.backward()
    assert estimate.grad is None and share.grad is not None and share.grad.any()


def test_the_bound_at_the_first_level_is_a_density() -> None:
    x0, estimate = normal(0), normal(1)
    found = diffusion.variational_bound(normal(2), x0, estimate, torch.ones(SIZE), levels(0, 0, 0))
    deviation = (diffusion.log_variance(torch.ones(1), levels(1), levels(0)) / 2).exp()
    expected = -Normal(estimate, deviation).log_prob(x0).mean() / math.log(2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
