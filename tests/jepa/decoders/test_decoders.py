"""Decoders show what latents hold, lose no small moving thing, refuse what they cannot decode, and survive saving."""

import json
from typing import Any

import pytest
import torch

from jepa.config import UserError
from jepa.decoders import DECODERS
from jepa.decoders.base import Decoder
from jepa.decoders.diffusion import DiffusionDecoder
from jepa.decoders.fit import Moving, fit_decoder
from jepa.decoders.pixels import PixelDecoder
from jepa.models.parts import load_decoder, save_decoder
from tests.edited import write_edited

SMALL: dict[str, dict[str, Any]] = {
    "pixels": {"hidden": 64, "channels": 16},
    "diffusion": {"hidden": 32, "depth": 1, "heads": 2, "patch": 8},
}
KINDS = sorted(SMALL)

pytestmark = pytest.mark.usefixtures("one_thread")


def config(kind: str) -> Any:
    return DECODERS.config(kind)(**SMALL[kind])


def pixels(tokens: int, width: int, size: int) -> PixelDecoder:
    return PixelDecoder(PixelDecoder.Config(), tokens, width, size)


def dots(count: int, size: int = 16, seed: int = 0, sharp: float = 0.01) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions [M, 2] in 0..1 and images [M, 1, 3, h, w] of a bright dot there."""
    at = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.1
    grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy"), -1) / size
    bright = torch.exp(-(grid - at[:, None, None]).square().sum(-1) / sharp)
    image = torch.stack([bright, 0.6 * bright, 0.1 + 0.0 * bright], 1)
    return at, (image * 255).to(torch.uint8)[:, None]


def as_tokens(at: torch.Tensor, grid: int = 4) -> torch.Tensor:
    """Tokens [M, 1, grid², 3] that each know where the dot is, seen from their own place."""
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    center = (torch.stack([x, y], -1).flatten(0, 1) + 0.5) / grid
    offset = at[:, None] - center
    return torch.cat([offset, offset.square().sum(-1, keepdim=True)], -1)[:, None]


def as_vector(at: torch.Tensor) -> torch.Tensor:
    return torch.cat([at, at.square()], -1)[:, None, None]


def error(decoder: Decoder, latents: torch.Tensor, frames: torch.Tensor) -> float:
    return (decoder.images(latents[:, 0]) - frames[:, 0] / 255).square().mean().item()


@pytest.mark.parametrize("tokens", [1, 16])
def test_moving_dots_come_out_far_better_than_the_mean_image(tokens):
    (at, frames), (other, unseen) = dots(256), dots(64, seed=1)
    encode = as_tokens if tokens > 1 else as_vector
    decoder = fit_decoder(config("pixels"), encode(at), frames, steps=100 if tokens == 1 else 400)
    mean = (unseen / 255 - frames.float().mean(0) / 255).square().mean().item()
    assert error(decoder, encode(other), unseen) < 0.4 * mean


def test_the_diffusion_decoder_draws_what_the_latent_says():
    at, frames = dots(256)
    decoder = fit_decoder(config("diffusion"), as_vector(at), frames, steps=300)
    z = as_vector(at[:32])
    assert error(decoder, z, frames[:32]) < 0.8 * error(decoder, z.roll(1, 0), frames[:32])


def test_what_moves_in_a_clip_weighs_more_than_what_differs_between_clips():
    frames = torch.zeros(4, 5, 3, 8, 8, dtype=torch.uint8)
    frames[::2, :, :, :, 0] = 200  # a wall of every other clip
    for step in range(5):
        frames[:, step, :, step, 4] = 200  # a dot that moves
    weight = Moving(frames)(frames.flatten(0, 1).float() / 255, torch.arange(20)).unflatten(0, (4, 5))
    assert (weight[:, 2, 0, 2, 4] > 10).all() and (weight[..., 0] < 0.01).all()


def test_weight_on_what_moves_keeps_a_small_dot_early_in_fitting():
    at, frames = dots(256, size=32, sharp=0.002)
    peaks = []
    for moving_weight in (0.0, 0.5):
        decoder = fit_decoder(config("pixels"), as_vector(at), frames, steps=50, moving_weight=moving_weight)
        peaks.append(decoder.images(as_vector(at[:64])[:, 0])[:, 0].flatten(1).amax(1).mean().item())
    assert peaks[1] > 1.2 * peaks[0]


@pytest.mark.parametrize("kind", KINDS)
def test_latents_that_know_nothing_decode_to_the_mean_image(kind):
    _, frames = dots(256)
    decoder = fit_decoder(config(kind), torch.zeros(256, 1, 1, 4), frames, steps=0)
    assert (decoder.images(torch.zeros(1, 1, 4))[0] - frames[:, 0].float().mean(0) / 255).abs().max() < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_videos_keep_their_shape_and_equal_single_images(kind):
    decoder = fit_decoder(config(kind), torch.randn(2, 3, 16, 3), torch.zeros(2, 3, 3, 48, 48).byte(), steps=1)
    z = torch.randn(2, 5, 16, 3)
    video = decoder.decode(z, chunk=3)
    assert video.shape == (2, 5, 3, 48, 48) and video.dtype == torch.uint8
    assert torch.allclose(video[1, 2] / 255, decoder.images(z[1, 2:3])[0], atol=0.003)


def test_only_a_generator_makes_a_drawing_decoder_vary():
    at, frames = dots(32)
    decoder = fit_decoder(config("diffusion"), as_vector(at), frames, steps=5)
    z = as_vector(at[:4])
    assert decoder.draws and not pixels(1, 4, 16).draws
    assert torch.equal(decoder.decode(z), decoder.decode(z))
    drawn = [decoder.decode(z, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_and_the_global_generator_is_left_alone(kind):
    at, frames = dots(64)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (
        fit_decoder(config(kind), as_vector(at), frames, steps=3, seed=s).state_dict() for s in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_fitting_leaves_no_gradient_in_the_latents():
    at, frames = dots(32)
    latents = as_vector(at).clone().requires_grad_()
    decoder = fit_decoder(config("pixels"), latents, frames, steps=2)
    assert latents.grad is None and not any(p.requires_grad for p in decoder.parameters())


@pytest.mark.parametrize(("tokens", "size"), [(3, 64), (0, 64), (25, 64), (1, 60)])
def test_shapes_that_cannot_be_decoded_are_refused(tokens, size):
    with pytest.raises(ValueError, match=f"found {tokens} tokens for {size} pixels"):
        pixels(tokens, 8, size)


def test_a_patch_that_does_not_divide_the_image_is_refused():
    with pytest.raises(ValueError, match="divisor of the image's 48 pixels, found 10"):
        DiffusionDecoder(DiffusionDecoder.Config(patch=10), 1, 8, 48)


@pytest.mark.parametrize(("latents", "frames"), [((0, 1, 1, 4), (0, 1, 3, 32, 32)), ((4, 1, 1, 4), (4, 1, 3, 32, 16))])
def test_pairs_that_cannot_be_fitted_are_refused(latents, frames):
    with pytest.raises(ValueError, match="one square image per latent"):
        fit_decoder(config("pixels"), torch.zeros(latents), torch.zeros(frames, dtype=torch.uint8))


def test_latents_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"decodes latents \[B, 1, 8\], found \[2, 1, 4\]"):
        pixels(1, 8, 32)(torch.zeros(2, 1, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_decoder_paints_the_same_images(kind, tmp_path):
    at, frames = dots(64)
    decoder = fit_decoder(config(kind), as_vector(at), frames, steps=5)
    save_decoder(tmp_path, decoder)
    assert {p.name for p in (tmp_path / kind).iterdir()} == {"model.safetensors", "model.json"}
    loaded = load_decoder(tmp_path, kind)
    assert loaded.config == decoder.config
    assert torch.equal(loaded.decode(as_vector(at)), decoder.decode(as_vector(at)))


def test_a_decoder_of_an_earlier_version_is_read(tmp_path):
    decoder = PixelDecoder(PixelDecoder.Config(hidden=256, layers=1), 1, 8, 32)
    save_decoder(tmp_path, decoder)
    path = tmp_path / "pixels" / "model.json"
    text = path.read_text()
    begin, end = text.index('"kind": "decoder"'), text.rindex("}")
    settings = '"settings": {"tokens": 1, "width": 8, "image_size": 32, "channels": 32}'
    path.write_text(f'{text[:begin]}"kind": "pixel_decoder", {settings}\n{text[end:]}')
    z = torch.randn(2, 1, 8)
    assert torch.equal(load_decoder(tmp_path, "pixels").images(z), decoder.eval().images(z))


def test_a_missing_or_foreign_decoder_is_named(tmp_path):
    with pytest.raises(UserError, match="pixels"):
        load_decoder(tmp_path, "pixels")
    save_decoder(tmp_path, pixels(1, 8, 32))
    path = tmp_path / "pixels" / "model.json"
    write_edited(path, json.loads(path.read_text().replace('"tokens": 1', '"tokens": 3')))
    with pytest.raises(UserError, match="does not describe a decoder"):
        load_decoder(tmp_path, "pixels")
