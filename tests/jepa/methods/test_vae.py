"""World Models' V: the published sizes, the terms of its loss, and latents that hold the image."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from jepa.encoders.conv import ConvEncoder
from jepa.encoders.vae import VAEEncoder
from jepa.methods.base import Batch, ClipShape
from jepa.methods.vae import VAE, kl_to_standard_normal
from jepa_data.transforms import normalize, zero_to_one

pytestmark = pytest.mark.usefixtures("one_thread")


def make(width: int = 32, **settings: float) -> VAE:
    torch.manual_seed(0)
    return VAE(VAE.Config(**settings), VAEEncoder(VAEEncoder.Config(width=width), 64, 2), ClipShape(2))


def images(clips: int, seed: int = 0) -> Tensor:
    """A bright square at the left or right, high or low, on a dark ground: uint8 [B, 1, 3, 64, 64]."""
    g = torch.Generator().manual_seed(seed)
    video = torch.full((clips, 1, 3, 64, 64), 30, dtype=torch.uint8)
    for clip, (y, x) in zip(video, (24 * torch.rand(clips, 2, generator=g) + 10).int().tolist(), strict=True):
        clip[..., y : y + 20, x : x + 20] = 220
    return video


def batch(video: Tensor) -> Batch:
    return Batch(normalize(video, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), None)


@pytest.mark.parametrize(("width", "parameters"), [(32, 4_348_547), (64, 4_446_915)])
def test_encoder_and_decoder_have_the_papers_parameters(width: int, parameters: int) -> None:
    assert sum(p.numel() for p in make(width).parameters()) == parameters


def test_the_kl_is_that_of_torch_distributions() -> None:
    mean, log_variance = torch.randn(2, 5, 32)
    oracle = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), oracle)


@pytest.mark.parametrize("tolerance", [0.0, 100.0])
def test_the_loss_is_the_squared_error_of_all_pixels_and_the_kl_beyond_the_tolerance(tolerance: float) -> None:
    method = make(kl_tolerance=tolerance)
    video = images(3)
    nn.init.constant_(method.encoder.log_variance.bias, -60.0)  # no noise to speak of
    nn.init.zeros_(method.encoder.log_variance.weight)
    terms = method.loss(batch(video), torch.Generator().manual_seed(0))
    mean, log_variance = method.encoder.posterior(batch(video).video)
    truth = video.flatten(0, 1) / 255
    error = (method.decoder(mean.flatten(0, 2)) - truth).square().sum() / len(truth)
    kl = kl_to_standard_normal(mean.flatten(0, 2), log_variance.flatten(0, 2)).mean()
    torch.testing.assert_close(terms["loss"], error + max(kl.detach(), torch.tensor(tolerance * 32)))
    torch.testing.assert_close(zero_to_one(batch(video).video).flatten(0, 1), truth)


def test_below_the_tolerance_the_kl_has_no_gradient() -> None:
    gradients = {}
    for tolerance in (0.0, 1e4):
        method = make(kl_tolerance=tolerance)
        mean = method.encoder.posterior(batch(images(2)).video)[0]
        method.loss(batch(images(2)), torch.Generator().manual_seed(0))["loss"].backward()
        assert mean.shape == (2, 1, 1, 32)
        gradients[tolerance] = method.encoder.mean.bias.grad
    assert not torch.allclose(gradients[0.0], gradients[1e4], rtol=1e-3)


def test_training_draws_the_images_better() -> None:
    method, video = make(), images(4)
    optimizer = torch.optim.Adam(method.parameters(), 1e-3)
    errors = []
    for step in range(16):
        optimizer.zero_grad()
        terms = method.loss(batch(video), torch.Generator().manual_seed(step))
        terms["loss"].backward()
        optimizer.step()
        errors.append(terms["reconstruction"].item())
    assert errors[-1] < 0.5 * errors[0]


def test_other_encoders_and_image_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder: \{kind: vae\}"):
        VAE(VAE.Config(), ConvEncoder(ConvEncoder.Config(), 64, 2), ClipShape(2))
    with pytest.raises(ValueError, match=r"64 px, found 32"):
        VAEEncoder(VAEEncoder.Config(), 32, 2)
