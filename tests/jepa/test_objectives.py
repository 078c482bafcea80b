"""SIGReg against direct integration, its gradient and its ranks; latent regression; the collapse monitors."""

import math

import numpy as np
import pytest
import torch

from jepa.objectives.collapse import dimension_std, effective_rank, lidar
from jepa.objectives.latent_regression import latent_regression, normalized, standardized
from jepa.objectives.sigreg import sigreg

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integrated(z: np.ndarray, axes: np.ndarray, knots: int) -> float:
    """The statistic by its definition: complex exponentials, both halves of the axis, float64."""
    t = np.linspace(-3, 3, 2 * knots - 1)
    axes = axes / np.linalg.norm(axes, axis=0)
    total = 0.0
    for axis in axes.T:
        ecf = np.exp(1j * t[:, None] * (z @ axis)).mean(1)
        total += len(z) * np.trapezoid(np.abs(ecf - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2), t)
    return total / axes.shape[1]


@pytest.mark.parametrize("scale", [1.0, 0.1, 5.0])
def test_sigreg_equals_direct_integration_in_float64(scale):
    z = scale * torch.randn(64, 12, generator=seeded(1))
    axes = torch.randn(12, 32, generator=seeded(2)).double().numpy()
    expected = integrated(z.double().numpy(), axes, 17)
    assert sigreg(z, seeded(2), directions=32).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scale", [1.0, 0.1, 5.0])
def test_sigreg_comes_to_the_integral_itself(scale):
    """Against ten times as many knots, in float64; the published 17 knots are within 5e-4 of it."""
    z = scale * torch.randn(64, 12, generator=seeded(1))
    axes = torch.randn(12, 32, generator=seeded(2)).double().numpy()
    expected = integrated(z.double().numpy(), axes, 1001)
    assert sigreg(z, seeded(2), directions=32, knots=65).item() == pytest.approx(expected, rel=1e-4)
    assert sigreg(z, seeded(2), directions=32).item() == pytest.approx(expected, rel=5e-4)


def test_17_knots_are_enough():
    z = torch.randn(256, 12, generator=seeded(1)).exp()
    coarse, fine = (sigreg(z, seeded(2), directions=32, knots=knots).item() for knots in (17, 1001))
    assert coarse == pytest.approx(fine, rel=1e-2)


def test_sigreg_is_small_for_a_gaussian_and_large_for_anything_collapsed():
    gaussian = torch.randn(512, 16, generator=seeded(1))
    half = torch.cat((gaussian[:, :8], gaussian[:, :8]), 1)
    values = [sigreg(z, seeded(2), directions=256).item() for z in (gaussian, half, 3 * gaussian, 0 * gaussian)]
    assert values[0] < 2 < min(values[1:]) and values[3] > 100


def test_sigreg_averages_over_views():
    z = torch.randn(3, 32, 8, generator=seeded(1))
    one_by_one = torch.stack([sigreg(view, seeded(2), directions=16) for view in z]).mean()
    torch.testing.assert_close(sigreg(z, seeded(2), directions=16), one_by_one)


def test_the_gradient_of_sigreg_is_its_slope():
    z = torch.randn(16, 6, generator=seeded(1)).requires_grad_()
    sigreg(z, seeded(2), directions=8).backward()
    axes, along = torch.randn(6, 8, generator=seeded(2)).double().numpy(), torch.randn(16, 6, generator=seeded(3))
    point, way, step = z.detach().double().numpy(), along.double().numpy(), 1e-5
    slope = (integrated(point + step * way, axes, 17) - integrated(point - step * way, axes, 17)) / (2 * step)
    assert (z.grad * along).sum().item() == pytest.approx(slope, rel=1e-3)


def test_sigreg_makes_a_collapsed_sample_gaussian():
    z = (0.01 * torch.randn(128, 4, generator=seeded(1))).requires_grad_()
    optimizer, generator = torch.optim.Adam([z], 0.05), seeded(2)
    for _ in range(150):
        optimizer.zero_grad()
        sigreg(z, generator, directions=32).backward()
        optimizer.step()
    covariance = torch.cov(z.detach().T)
    assert (covariance - torch.eye(4)).abs().max() < 0.3


def test_sigreg_stays_exact_under_autocast():
    z = torch.randn(64, 12, generator=seeded(1))
    with torch.autocast("cpu", torch.bfloat16):
        low = sigreg(z, seeded(2), directions=32)
    assert torch.equal(low, sigreg(z, seeded(2), directions=32))


def test_latent_regression_is_the_mean_distance_and_leaves_the_target_alone():
    prediction, target = torch.zeros(2, 3, 4, requires_grad=True), torch.full((2, 3, 4), -2.0, requires_grad=True)
    loss = latent_regression(prediction, target)
    loss.backward()
    assert loss.item() == 2.0 and prediction.grad is not None and target.grad is None


def test_standardized_targets_have_no_mean_and_unit_variance_per_channel_and_no_constant_part():
    tokens = torch.randn(5, 6, 64) * torch.linspace(0.1, 3, 64)
    z = standardized(tokens + 100 * torch.randn(64))
    torch.testing.assert_close(z.mean((0, 1)), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std((0, 1), correction=0), torch.ones(64), atol=1e-3, rtol=0)
    torch.testing.assert_close(z, standardized(tokens), atol=1e-3, rtol=0)


def test_normalized_targets_have_no_mean_and_unit_variance_per_token():
    z = normalized(3 + 7 * torch.randn(5, 6, 64))
    torch.testing.assert_close(z.mean(-1), torch.zeros(5, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(-1, correction=0), torch.ones(5, 6), atol=1e-4, rtol=0)


def test_effective_rank_counts_equal_directions():
    basis = torch.linalg.qr(torch.randn(64, 64, generator=seeded(1))).Q
    for rank in (1, 3, 16):
        assert effective_rank(basis[:, :rank] @ torch.eye(rank, 20)).item() == pytest.approx(rank, rel=1e-4)
    assert effective_rank(torch.randn(4000, 16, generator=seeded(1))).item() > 15.5


def test_the_gauges_see_collapse_even_with_rounding_noise():
    collapsed = torch.randn(1, 32, generator=seeded(1)) + 1e-6 * torch.randn(256, 32, generator=seeded(2))
    assert effective_rank(collapsed).item() < 1.01
    assert dimension_std(collapsed).max().item() < 1e-5
    assert effective_rank(torch.zeros(8, 4)).item() <= 1
    spread = dimension_std(torch.randn(4000, 8, generator=seeded(1)) * torch.arange(8))
    torch.testing.assert_close(spread, torch.arange(8.0), atol=0.2, rtol=0)
    assert math.isfinite(effective_rank(torch.zeros(8, 4)).item())


def lidar_by_definition(z: np.ndarray) -> float:
    """Scatter matrices and their square roots, as the paper writes them."""
    samples, views, width = z.shape
    means = z.mean(1)
    between = (means - means.mean(0)).T @ (means - means.mean(0)) / (samples - 1)
    inner = (z - means[:, None]).reshape(-1, width)
    within = inner.T @ inner / (samples * (views - 1)) + 1e-4 * np.eye(width)
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ between @ root).clip(0)
    shares = eigenvalues / eigenvalues.sum()
    return float(np.exp(-(shares * np.log(shares + 1e-300)).sum()))


@pytest.mark.parametrize(("samples", "views", "width"), [(20, 2, 6), (12, 5, 40), (8, 2, 64)])
def test_lidar_equals_its_definition(samples, views, width):
    told = torch.randn(samples, 1, width, generator=seeded(1)) * torch.linspace(0.1, 3, width)
    z = told + 0.3 * torch.randn(samples, views, width, generator=seeded(2))
    assert lidar(z).item() == pytest.approx(lidar_by_definition(z.double().numpy()), rel=1e-5)


def test_lidar_counts_what_tells_samples_apart_and_not_how_views_differ():
    noise = torch.randn(64, 2, 32, generator=seeded(1))
    told = torch.zeros(64, 1, 32)
    told[..., :3] = torch.randn(64, 1, 3, generator=seeded(2))
    assert lidar(told + 0.01 * noise).item() == pytest.approx(3, abs=0.3)
    assert effective_rank((told + noise).flatten(0, 1)).item() > 20 and lidar(10 * told + noise).item() < 5
    constant = torch.randn(1, 1, 32, generator=seeded(3))
    assert lidar(constant.expand(64, 2, 32)).item() == pytest.approx(1)
    assert lidar(constant + 1e-6 * noise).item() < 1.01, "rounding noise is no rank"
    with pytest.raises(ValueError, match="at least 2 of each, found 64 samples, 1 views"):
        lidar(noise[:, :1])
