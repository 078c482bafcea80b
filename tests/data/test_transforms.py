"""Batch transforms against torchvision and torch, and consistent in time."""

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch.nn import functional as F

from jepa_data.config import AugmentConfig
from jepa_data.transforms import (
    color_jitter,
    crop_resize,
    normalize,
    random_boxes,
    random_flip,
    random_greyscale,
    random_resized_crop,
    resize,
    to_input,
    unnormalize,
)
from jepa_data.types import ClipBatch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def still(b: int = 6, t: int = 3, h: int = 40, w: int = 56, seed: int = 0) -> torch.Tensor:
    """Clips [b, t, 3, h, w] in 0..1 in which nothing moves."""
    return torch.rand(b, 1, 3, h, w, generator=generator(seed)).expand(b, t, 3, h, w).contiguous()


def test_normalize_is_torchvision_s_and_can_be_undone() -> None:
    video = torch.randint(0, 256, (2, 3, 3, 8, 8), dtype=torch.uint8, generator=generator())
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    torch.testing.assert_close(normalize(video, mean, std), tv.normalize(video / 255, list(mean), list(std)))
    assert torch.equal(unnormalize(normalize(video, mean, std), mean, std), video)


@pytest.mark.parametrize("size", [(20, 28), (17, 9), (40, 56), (64, 80)])
def test_resizing_is_torch_s_antialiased_resizing(size: tuple[int, int]) -> None:
    video = still()
    expected = F.interpolate(video.flatten(0, 1), size, mode="bilinear", antialias=True).unflatten(0, (6, 3))
    torch.testing.assert_close(resize(video, size), expected, atol=1e-5, rtol=0)


def test_a_box_is_cropped_and_then_scaled() -> None:
    video = still(b=3)
    boxes = torch.tensor([[0.0, 0.0, 40, 56], [5, 7, 20, 30], [33, 50, 4, 5]])
    found = crop_resize(video, boxes, 16)
    for i, (top, left, h, w) in enumerate(boxes.int().tolist()):
        part = video[i, :, :, top : top + h, left : left + w]
        expected = F.interpolate(part, (16, 16), mode="bilinear", antialias=True)
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=0)


def test_random_boxes_keep_to_their_ranges() -> None:
    boxes = random_boxes(torch.zeros(2000, 1, 1, 64, 96), (0.25, 0.75), (3 / 4, 4 / 3), generator=generator())
    top, left, h, w = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 64).all() and (left + w <= 96).all()
    share, ratio = h * w / (64 * 96), w / h
    assert share.min() > 0.22 and share.max() < 0.78 and share.std() > 0.1
    assert ratio.min() > 0.7 and ratio.max() < 1.42 and ratio.std() > 0.1
    wide = random_boxes(torch.zeros(50, 1, 1, 64, 8), (0.9, 1.0), (1.0, 1.0), generator=generator())
    assert (wide[:, 2] + wide[:, 0] <= 64).all() and (wide[:, 3] == 8).all(), "cut to the image where nothing fits"


@pytest.mark.parametrize(
    "transform",
    [
        lambda x, g: random_resized_crop(x, 24, (0.2, 1.0), generator=g),
        lambda x, g: random_flip(x, generator=g),
        lambda x, g: random_greyscale(x, 0.5, generator=g),
        lambda x, g: color_jitter(x, generator=g),
    ],
    ids=["crop", "flip", "grayscale", "jitter"],
)
def test_a_draw_holds_for_all_frames_of_a_clip_and_comes_from_the_generator(transform) -> None:
    video = still(b=1).expand(16, 3, 3, 40, 56).contiguous()
    out = transform(video, generator(1))
    assert torch.equal(out, transform(video, generator(1))) and not torch.equal(out, transform(video, generator(2)))
    torch.testing.assert_close(out, out[:, :1].expand_as(out), atol=1e-6, rtol=0)
    assert not torch.allclose(out, out[:1].expand_as(out)), "clips differ from each other"
    assert out.min() >= -1e-6 and out.max() <= 1 + 1e-6


def test_color_jitter_is_torchvision_s_where_the_two_agree() -> None:
    video = still(b=1, t=1) * 0.3 + 0.3  # far from black and white, so that nothing is clipped
    for strength, adjust in (((0.5, 0.0, 0.0), tv.adjust_brightness), ((0.0, 0.5, 0.0), tv.adjust_contrast)):
        out = color_jitter(video, *strength, 0.0, generator=generator(3))
        draws = 2 * torch.rand(4, 1, generator=generator(3)) - 1
        factor = 1 + 0.5 * float(draws[0 if strength[0] else 1])
        torch.testing.assert_close(out, adjust(video, factor), atol=2e-3, rtol=0)


def test_hue_leaves_grey_and_brightness_alone() -> None:
    gray = torch.rand(4, 2, 1, 8, 8, generator=generator()).expand(4, 2, 3, 8, 8)
    torch.testing.assert_close(color_jitter(gray, 0.0, 0.0, 0.0, 0.5, generator=generator()), gray, atol=1e-5, rtol=0)
    video = still(b=4) * 0.2 + 0.4
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    out = color_jitter(video, 0.0, 0.0, 0.0, 0.5, generator=generator())
    assert (out - video).abs().max() > 0.02
    torch.testing.assert_close((out * luma).sum(2), (video * luma).sum(2), atol=1e-4, rtol=0)


def batch_of(video: torch.Tensor, seeds: list[int]) -> ClipBatch:
    return ClipBatch(
        (video * 255).to(torch.uint8),
        None,
        None,
        tuple(map(str, seeds)),
        torch.zeros(len(seeds)),
        seeds=torch.tensor(seeds),
    )


def test_what_is_drawn_for_a_clip_depends_on_its_seed_alone() -> None:
    config = AugmentConfig.model_validate({"crop": {}, "flip": 0.5, "color": 0.5, "gray": 0.3})
    video, seeds = still(), [5, 9, 2, 7, 11, 3]
    whole = to_input(batch_of(video, seeds), config)
    assert not torch.allclose(whole, normalize((video * 255).to(torch.uint8)))
    for order in ([3, 1], [5, 0, 4]):
        part = to_input(batch_of(video[order], [seeds[i] for i in order]), config)
        torch.testing.assert_close(part, whole[order])
    assert (whole[:, 0] == whole[:, 1]).all(), "what stood still before stands still afterwards"
    other = to_input(batch_of(video, [s + 100 for s in seeds]), config)
    assert all(not torch.allclose(a, b) for a, b in zip(whole, other, strict=True))


def test_without_changes_a_batch_is_only_normalized() -> None:
    batch = batch_of(still(), [1] * 6)
    assert torch.equal(to_input(batch, AugmentConfig.model_validate({})), normalize(batch.video))
