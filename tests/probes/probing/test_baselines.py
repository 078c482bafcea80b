"""Encoders that were not pretrained."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jepa.encoders.conv import ConvEncoder
from jepa.encoders.video_vit import VideoViT
from jepa_data.config import StreamConfig
from jepa_data.stream.loader import make_loader
from jepa_data.transforms import normalize
from jepa_data.types import ClipBatch
from jepa_probes.probing.baselines import pca_pixels, pixels, random_init, train_supervised
from jepa_probes.probing.features import Features

make_conv = partial(ConvEncoder, ConvEncoder.Config(width=8, channels=8, hidden=32), 32, 4)
adamw = partial(lambda module, lr: torch.optim.AdamW(module.parameters(), lr), lr=3e-3)


def squares(steps: int, seed: int, clips: int = 16) -> Iterator[ClipBatch]:
    """Clips of a bright square that stands somewhere; its place is the state. One column never exists."""
    g = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        corner = torch.randint(0, 24, (clips, 2), generator=g)
        video = torch.full((clips, 4, 3, 32, 32), 20, dtype=torch.uint8)
        for clip, (x, y) in zip(video, corner.tolist(), strict=True):
            clip[..., y : y + 8, x : x + 8] = 230
        place = (corner / 24).float()[:, None].expand(clips, 4, 2)
        states = torch.cat([place, torch.full((clips, 4, 1), torch.nan)], -1)
        yield ClipBatch(video, None, states, tuple(map(str, range(clips))), torch.zeros(clips))


NAMES = ("puck.x", "puck.y", "body0.x")


def test_a_random_encoder_has_the_statistics_of_the_clips_and_follows_its_seed(corpus: Path) -> None:
    config = StreamConfig(shards=str(corpus), batch_size=10, clip_frames=12)
    batches = list(make_loader(config, "train", seed=0, shuffle=False))
    encoder, again, other = (random_init(make_conv, seed, batches, normalize) for seed in (0, 0, 1))
    z = torch.cat([encoder(normalize(batch.video)) for batch in batches]).flatten(0, 2)
    # Without calibration they would be far from it: the first layers shrink what they see.
    torch.testing.assert_close(z.mean(0), torch.zeros(8), atol=0.1, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(8), atol=0.2, rtol=0)
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())
    video = normalize(batches[0].video)
    assert torch.equal(encoder(video), again(video)) and not torch.equal(encoder(video), other(video))


def test_a_random_encoder_without_batch_norm_needs_no_clips() -> None:
    make = partial(VideoViT, VideoViT.Config(width=12, depth=1, heads=2), 32, 4)
    encoder = random_init(make, 3, [], normalize)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = make().state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in encoder.state_dict().items())


def test_pixels_are_averaged_and_the_frames_of_a_step_stand_side_by_side() -> None:
    video = torch.zeros(1, 4, 3, 16, 16, dtype=torch.uint8)
    video[0, 3, 1, :8, 8:] = 255  # last frame, green, top right quarter
    z = pixels(2, side=2)(video)
    assert z.shape == (1, 2, 1, 2 * 3 * 4)
    assert z[0, 1, 0].nonzero().flatten().tolist() == [1 * 12 + 1 * 4 + 0 * 2 + 1] and z.max() == 1


def test_components_of_pixels_are_fitted_on_training_clips_only(features: Callable[..., Features]) -> None:
    g = torch.Generator().manual_seed(0)
    train = features(torch.randn(50, 4, 1, 30, generator=g) * torch.linspace(3, 0.1, 30))
    test = features(torch.randn(20, 4, 1, 30, generator=g) * 5)
    first, held = pca_pixels(train, test, 6)
    again, _ = pca_pixels(train, features(torch.zeros(20, 4, 1, 30)), 6)
    assert torch.equal(first.latents, again.latents) and held.latents.shape == (20, 4, 1, 6)
    flat = first.latents.flatten(0, 2)
    deviation = flat.std(0, correction=0)
    torch.testing.assert_close(flat.T @ flat / len(flat), torch.diag(deviation**2), atol=1e-3, rtol=0)
    expected = torch.linalg.svdvals(train.latents.flatten(0, 2) - train.latents.mean((0, 1, 2)))[:6] / 200**0.5
    torch.testing.assert_close(deviation, expected, atol=1e-3, rtol=0)


def test_a_supervised_encoder_learns_the_place_that_a_random_one_does_not_show() -> None:
    fit, test = next(squares(1, 7, clips=200)), next(squares(1, 8, clips=100))
    assert fit.states is not None and test.states is not None

    def r2(encoder: nn.Module) -> float:
        x, t = (encoder(normalize(batch.video))[:, 0, 0] for batch in (fit, test))
        truth, expected = fit.states[:, 0, :2], test.states[:, 0, :2]  # pyright: ignore[reportOptionalSubscript]
        ones = torch.ones(len(x), 1), torch.ones(len(t), 1)
        predicted = torch.cat([t, ones[1]], 1) @ torch.linalg.lstsq(torch.cat([x, ones[0]], 1), truth).solution
        return 1 - float((predicted - expected).square().mean() / expected.var(0).mean())

    train = partial(train_supervised, make_conv, prepare=normalize, state_names=NAMES, seed=0, make_optimizer=adamw)
    encoder = train(batches=squares(60, 0), lr_factor=lambda step: 1.0)
    assert r2(encoder) > 0.9 > r2(random_init(make_conv, 0, squares(4, 1), normalize)) + 0.1
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())


def test_supervised_training_is_a_function_of_its_seed_and_needs_states() -> None:
    train = partial(train_supervised, make_conv, prepare=normalize, state_names=NAMES, make_optimizer=adamw)
    runs = [train(batches=squares(2, 0), seed=s, lr_factor=lambda step: 1.0).state_dict() for s in (0, 0, 1)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not torch.equal(runs[0]["stem.0.weight"], runs[2]["stem.0.weight"])
    plain = [ClipBatch(b.video, None, None, b.keys, b.start_seconds) for b in squares(1, 0)]
    with pytest.raises(ValueError, match="clips with states"):
        train(batches=plain, seed=0, lr_factor=lambda step: 1.0)
    with pytest.raises(ValueError, match="at least one batch"):
        train(batches=[], seed=0, lr_factor=lambda step: 1.0)


def test_a_zero_learning_rate_factor_leaves_the_weights_as_they_were() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected: dict[str, Tensor] = {name: p.detach() for name, p in make_conv().named_parameters()}
    encoder = train_supervised(
        make_conv, squares(2, 0), normalize, NAMES, seed=5, make_optimizer=adamw, lr_factor=lambda step: 0.0
    )
    assert all(torch.equal(p, expected[name]) for name, p in encoder.named_parameters())
