"""R², and what it is told of."""

import numpy as np
import pytest
import torch

from jepa.decoders.state import LinearRead
from jepa.r2 import r2_score


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("offset", "spread"), [(0.0, 1.0), (1000.0, 0.1), (10_000.0, 1.0), (0.0, 1e-6), (-3e6, 2.0)])
def test_r2_is_its_definition_in_float64_whatever_the_offset(offset: float, spread: float) -> None:
    truth = offset + spread * drawn(500, 3)
    predicted = truth + 0.3 * spread * drawn(500, 3, seed=1)
    y, p = truth.double().numpy(), predicted.double().numpy()
    expected = 1 - ((y - p) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(r2_score(predicted, truth), expected, rtol=1e-9)
    mean = torch.full_like(truth, 1.0).double() * truth.double().mean(0)
    np.testing.assert_allclose(r2_score(mean, truth), 0, atol=1e-9)


def test_what_does_not_vary_has_no_r2() -> None:
    truth = torch.stack([torch.full((50,), 1000.3), drawn(50)], 1)
    found = r2_score(truth + 1, truth)
    assert found[0].isnan() and found[1].isfinite()
    assert r2_score(truth[:1], truth[:1]).isnan().all() and r2_score(truth[:0], truth[:0]).shape == (2,)


def test_a_quantity_far_from_zero_is_read_off_latents_far_from_zero() -> None:
    z = 1000 + 0.1 * drawn(400, 1, 6)
    truth = 1000 + 0.1 * (z.double()[:, 0] - 1000) @ drawn(6, 2, seed=1).double()
    read = LinearRead(z[:300], truth[:300].float())
    assert read.explained(z[300:], truth[300:].float()).min() > 0.99
