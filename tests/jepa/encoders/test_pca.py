"""Principal components of blurred images: what is seen stays readable, and small bodies count as much as large ones."""

import pytest
import torch
from torch import Tensor

from jepa.encoders.pca import PCAEncoder

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 16


def scenes(count: int) -> tuple[Tensor, Tensor]:
    """Clips [B, 1, 3, h, w] of a large gray and a small blue square, and where they are [B, 4]."""
    generator = torch.Generator().manual_seed(0)
    places = 4 + 8 * torch.rand(count, 4, generator=generator)
    pixel = torch.arange(SIZE) + 0.5
    images = torch.ones(count, 3, SIZE, SIZE)
    for first, radius, color in ((0, 3.0, (0.4, 0.4, 0.4)), (2, 0.8, (0.1, 0.3, 1.0))):
        inside = ((pixel - places[:, first : first + 2, None]).abs() < radius).float()  # [B, 2, side]
        mask = inside[:, 1, :, None] * inside[:, 0, None, :]
        images = torch.where(mask[:, None] > 0, torch.tensor(color).view(3, 1, 1), images)
    return images[:, None], places


def fitted(width: int, video: Tensor) -> PCAEncoder:
    torch.manual_seed(0)
    encoder = PCAEncoder(PCAEncoder.Config(width=width), SIZE, 1)
    encoder.fit(video)
    return encoder


@torch.no_grad()
def test_components_are_uncorrelated_and_vary_less_and_less() -> None:
    video, _ = scenes(400)
    z = fitted(12, video)(video)[:, 0, 0]
    torch.testing.assert_close(z.mean(0), torch.zeros(12), atol=1e-4, rtol=0)
    covariance = z.T @ z / len(z)
    spread = covariance.diagonal()
    assert spread.mean().item() == pytest.approx(1, rel=1e-3)
    assert (spread.diff() <= 1e-4).all() and spread[0] > 1.5 * spread[-1]
    torch.testing.assert_close(covariance, spread.diag(), atol=1e-3, rtol=0)


@torch.no_grad()
def test_the_small_body_counts_as_much_as_the_large_one() -> None:
    video, places = scenes(400)
    encoder = fitted(48, video)
    z = encoder(video)[:, 0, 0]
    rows = torch.cat([z, torch.ones(len(z), 1)], 1)
    for body in (0, 2):
        places_there = places[:, body : body + 2]
        left = places_there[300:] - rows[300:] @ torch.linalg.lstsq(rows[:300], places_there[:300]).solution
        assert 1 - left.square().mean() / places_there[300:].var() > 0.7
    moved = [(z[:200] - z[200:]).square().sum(-1)]
    shares = []
    for body in (0, 2):
        same = (places[:200, body : body + 2] - places[200:, body : body + 2]).norm(dim=-1)
        shares.append(torch.corrcoef(torch.stack([same, moved[0]]))[0, 1])
    assert min(shares) > 0.2, "distances tell of both"


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a side that divides 24 pixels"):
        PCAEncoder(PCAEncoder.Config(), 24, 1)
    encoder = PCAEncoder(PCAEncoder.Config(), SIZE, 1)
    with pytest.raises(ValueError, match="expected more frames than 64 components, found 3"):
        encoder.fit(torch.zeros(3, 1, 3, SIZE, SIZE))
    with pytest.raises(ValueError, match="expected images of 16 pixels"):
        encoder(torch.zeros(1, 1, 3, 8, 8))
