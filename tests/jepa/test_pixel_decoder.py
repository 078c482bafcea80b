"""The pixel decoder shows what latents hold, refuses what it cannot decode, and survives saving."""

import pytest
import torch

from jepa.config import UserError
from jepa.decoders.pixels import PixelDecoder, fit_pixel_decoder
from jepa.models.parts import load_pixel_decoder, save_pixel_decoder


def dots(count: int, size: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions [M, 2] in 0..1 and images of a bright dot there."""
    at = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.1
    grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy"), -1) / size
    bright = torch.exp(-(grid - at[:, None, None]).square().sum(-1) / 0.01)
    image = torch.stack([bright, 0.6 * bright, 0.1 + 0.0 * bright], 1)
    return at, (image * 255).to(torch.uint8)


def as_tokens(at: torch.Tensor, grid: int = 4) -> torch.Tensor:
    """Tokens [M, grid², 3] that each know where the dot is, seen from their own place."""
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    center = (torch.stack([x, y], -1).flatten(0, 1) + 0.5) / grid
    offset = at[:, None] - center
    return torch.cat([offset, offset.square().sum(-1, keepdim=True)], -1)


def error(decoder: PixelDecoder, latents: torch.Tensor, frames: torch.Tensor) -> float:
    return (decoder(latents) - frames / 255).square().mean().item()


@pytest.mark.parametrize("tokens", [1, 16])
def test_moving_dots_come_out_far_better_than_the_mean_image(tokens):
    (at, frames), (other, unseen) = dots(256), dots(64, seed=1)
    encode = as_tokens if tokens > 1 else (lambda p: torch.cat([p, p.square()], -1)[:, None])
    decoder = fit_pixel_decoder(encode(at), frames, steps=80)
    mean = (unseen / 255 - frames.float().mean(0) / 255).square().mean().item()
    assert error(decoder, encode(other), unseen) < 0.4 * mean


def test_latents_that_know_nothing_decode_to_the_mean_image():
    _, frames = dots(256)
    decoder = fit_pixel_decoder(torch.zeros(256, 1, 4), frames, steps=20)
    assert (decoder(torch.zeros(1, 1, 4))[0] - frames.float().mean(0) / 255).abs().max() < 0.1


def test_videos_keep_their_shape_and_equal_single_images():
    decoder = PixelDecoder(16, 3, 48)
    z = torch.randn(2, 5, 16, 3)
    video = decoder.decode(z, chunk=3)
    assert video.shape == (2, 5, 3, 48, 48) and video.dtype == torch.uint8
    assert torch.allclose(video[1, 2] / 255, decoder(z[1, 2:3])[0], atol=0.003)


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    at, frames = dots(64)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (fit_pixel_decoder(at[:, None], frames, steps=3, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["enter.0.weight"], other["enter.0.weight"])


def test_fitting_leaves_no_gradient_in_the_latents():
    at, frames = dots(32)
    latents = at[:, None].clone().requires_grad_()
    decoder = fit_pixel_decoder(latents, frames, steps=2)
    assert latents.grad is None and not any(p.requires_grad for p in decoder.parameters())


@pytest.mark.parametrize(("tokens", "size"), [(3, 64), (0, 64), (25, 64), (1, 60)])
def test_shapes_that_cannot_be_decoded_are_refused(tokens, size):
    with pytest.raises(ValueError, match=f"found {tokens} tokens for {size} pixels"):
        PixelDecoder(tokens, 8, size)


@pytest.mark.parametrize(("latents", "frames"), [((0, 1, 4), (0, 3, 32, 32)), ((4, 1, 4), (4, 3, 32, 16))])
def test_pairs_that_cannot_be_fitted_are_refused(latents, frames):
    with pytest.raises(ValueError, match="one square image per latent"):
        fit_pixel_decoder(torch.zeros(latents), torch.zeros(frames, dtype=torch.uint8))


def test_latents_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"decodes latents \[B, 1, 8\], found \[2, 1, 4\]"):
        PixelDecoder(1, 8, 32)(torch.zeros(2, 1, 4))


def test_a_saved_decoder_paints_the_same_images(tmp_path):
    at, frames = dots(64)
    decoder = fit_pixel_decoder(at[:, None], frames, steps=5)
    save_pixel_decoder(tmp_path, decoder)
    assert {p.name for p in (tmp_path / "pixels").iterdir()} == {"model.safetensors", "model.json"}
    assert torch.equal(load_pixel_decoder(tmp_path)(at[:, None]), decoder(at[:, None]))


def test_a_missing_or_foreign_decoder_is_named(tmp_path):
    with pytest.raises(UserError, match="pixels"):
        load_pixel_decoder(tmp_path)
    save_pixel_decoder(tmp_path, PixelDecoder(1, 8, 32))
    path = tmp_path / "pixels" / "model.json"
    path.write_text(path.read_text().replace('"tokens": 1', '"tokens": 3'))
    with pytest.raises(UserError, match="does not describe a pixel decoder"):
        load_pixel_decoder(tmp_path)
