"""Image moments of bodies of different colors: where they are, and how they are turned."""

import math

import pytest
import torch
from torch import Tensor

from jepa.encoders.moments import MomentsEncoder

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE, FINE = 32, 4
WHITE, GRAY, BLUE = (0.9, 0.9, 0.85), (0.35, 0.4, 0.5), (0.1, 0.3, 0.95)


def scene(poses: Tensor, disc: Tensor) -> Tensor:
    """Clips [B, 1, 3, h, w] of a gray L at poses (x, y, angle) and a blue disc; in widths of the image."""
    at = (torch.arange(SIZE * FINE) + 0.5) / (SIZE * FINE)
    y, x = torch.meshgrid(at, at, indexing="ij")
    cos, sin = poses[:, 2, None, None].cos(), poses[:, 2, None, None].sin()
    dx, dy = x - poses[:, 0, None, None], y - poses[:, 1, None, None]
    u, v = cos * dx + sin * dy, -sin * dx + cos * dy
    body = ((u.abs() < 0.12) & (v.abs() < 0.04)) | (((u - 0.08).abs() < 0.04) & ((v - 0.1).abs() < 0.06))
    round_one = (x - disc[:, 0, None, None]).square() + (y - disc[:, 1, None, None]).square() < 0.05**2
    image = torch.tensor(WHITE).view(1, 3, 1, 1).expand(len(poses), 3, *x.shape)
    image = torch.where(body[:, None], torch.tensor(GRAY).view(3, 1, 1), image)
    image = torch.where(round_one[:, None], torch.tensor(BLUE).view(3, 1, 1), image)
    return torch.nn.functional.avg_pool2d(image, FINE)[:, None]


def drawn(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Clips, poses, and discs, which do not touch the other body."""
    generator = torch.Generator().manual_seed(seed)
    poses = 0.3 + 0.4 * torch.rand(4 * count, 3, generator=generator)
    poses[:, 2] = 2 * math.pi * torch.rand(4 * count, generator=generator)
    discs = 0.1 + 0.8 * torch.rand(4 * count, 2, generator=generator)
    apart = ((poses[:, :2] - discs).norm(dim=1) > 0.27).nonzero()[:count, 0]
    assert len(apart) == count
    return scene(poses[apart], discs[apart]), poses[apart], discs[apart]


def fitted(bodies: int = 2) -> MomentsEncoder:
    encoder = MomentsEncoder(MomentsEncoder.Config(bodies=bodies), SIZE, 1)
    encoder.fit(drawn(200)[0])
    return encoder


@torch.no_grad()
def test_a_shift_moves_only_the_center_of_that_body_and_by_the_shift() -> None:
    encoder = fitted()
    _, poses, discs = drawn(20, seed=1)
    z = encoder(scene(poses, discs))[:, 0, 0].unflatten(-1, (2, 8)) / encoder.scale
    shift = torch.tensor([0.05, -0.03])
    shifted = torch.cat((poses[:, :2] + shift, poses[:, 2:]), 1)
    moved = encoder(scene(shifted, discs))[:, 0, 0].unflatten(-1, (2, 8)) / encoder.scale
    change = (moved - z).abs().amax((0, 2))
    disc, body = int(change.argmin()), int(change.argmax())
    assert disc != body
    torch.testing.assert_close(moved[:, disc], z[:, disc], atol=2e-3, rtol=0)
    torch.testing.assert_close(moved[:, body, :2] - z[:, body, :2], shift.expand(20, 2), atol=5e-3, rtol=0)
    torch.testing.assert_close(moved[:, body, 2:], z[:, body, 2:], atol=0.02, rtol=0)
    torch.testing.assert_close(z[:, disc, :2], discs - 0.5, atol=5e-3, rtol=0)


@torch.no_grad()
def test_a_turn_by_a_turns_the_harmonic_of_order_m_by_m_times_a_and_moves_it_by_the_radius_times_a() -> None:
    encoder = fitted()
    _, poses, discs = drawn(20, seed=2)
    angle = 0.3
    turned = torch.cat((poses[:, :2], poses[:, 2:] + angle), 1)
    both = torch.stack([encoder(scene(p, discs))[:, 0, 0].unflatten(-1, (2, 8)) for p in (poses, turned)])
    body = int((both[1] - both[0])[..., 2:].abs().amax((0, 2)).argmax())
    _, _, radius = encoder._moments(encoder.masks(scene(poses, discs)))
    for index, order in enumerate((1, 2, 3)):
        h = torch.view_as_complex((both[:, :, body, 2 + 2 * index : 4 + 2 * index] / encoder.scale).contiguous())
        assert (h.abs() > 0).all()
        torch.testing.assert_close((h[1] / h[0]).angle(), torch.full((20,), order * angle), atol=0.15, rtol=0)
        moved = (h[1] - h[0]).abs().mean() / (2 * math.sin(order * angle / 2) / order)
        assert moved.item() == pytest.approx(radius[:, 0, body].mean().item(), rel=0.1)
    assert (both[:, :, 1 - body, 2:] == 0).all(), "a disc has no harmonics"


@torch.no_grad()
def test_pixels_on_a_rim_are_shared_and_shares_are_the_area() -> None:
    encoder = fitted()
    masks = encoder.masks(drawn(20, seed=3)[0])[:, 0]
    assert masks.min() >= 0 and masks.max() <= 1
    areas = masks.sum((-2, -1)).mean(0) / SIZE**2
    expected = sorted((math.pi * 0.05**2, 0.24 * 0.08 + 0.08 * 0.12 - 0.08 * 0.0))
    torch.testing.assert_close(areas.sort().values, torch.tensor(expected), rtol=0.05, atol=0)


@torch.no_grad()
def test_a_body_that_is_not_there_and_a_blank_image_give_finite_latents() -> None:
    encoder = fitted()
    blank = torch.tensor(WHITE).view(1, 1, 3, 1, 1).expand(1, 1, 3, SIZE, SIZE)
    assert encoder(blank).isfinite().all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 3 bodies of different colors on one background, found 2"):
        fitted(bodies=3)
    with pytest.raises(ValueError, match="expected images of 32 pixels, found \\[8, 8\\]"):
        MomentsEncoder(MomentsEncoder.Config(), SIZE, 1)(torch.zeros(1, 1, 3, 8, 8))
