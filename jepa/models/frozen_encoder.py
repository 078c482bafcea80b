"""An encoder with the weights of a trained model, and whether it can be frozen."""

import torch
from torch import Tensor, nn

from jepa.config import UserError
from jepa.encoders.base import EncoderConfig
from jepa.encoders.module import Encoder
from jepa.encoders.per_frame import PerFrameEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.models.build import build_encoder
from jepa.models.checkpoint import check_tensors
from jepa.models.model import open_model

ALIKE = 1e-3  # of the spread of latents: what sums in another order may differ by


def load_frozen(name: str, config: EncoderConfig, image_size: int, frames: int) -> Encoder:
    """The encoder of a model with its weights, for clips of this size.

    Raises:
        UserError: there is no model, or it cannot read clips of this size.
    """
    trained = open_model(name).world.encoder
    encoder = build_encoder(config, image_size, frames)
    inner = encoder.encoder if isinstance(encoder, PerFrameEncoder) and isinstance(trained, VideoViT) else encoder
    weights = trained.state_dict()
    check_tensors(inner.state_dict(), weights, f"method.encoder_from: at {image_size} px the encoder of {name}")
    inner.load_state_dict(weights)
    return encoder


@torch.no_grad()
def check_freezable(encoder: nn.Module, image_size: int, tubelet: int) -> None:
    """Try it, on two latent steps of noise: a latent must follow from its own frames alone.

    Raises:
        UserError: it changes with later frames.
    """
    parameter = next(encoder.parameters())
    if parameter.is_meta:
        return
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(1, 2 * tubelet, 3, image_size, image_size, generator=generator).to(parameter)
    training = encoder.training
    encoder.eval()
    try:
        whole = encoder(video)
        alone = encoder(video[:, :tubelet])
    finally:
        encoder.train(training)
    change: Tensor = (whole[:, :1] - alone).abs().max() / whole.std().clamp_min(1e-6)
    if not change <= ALIKE:
        raise UserError(
            "encoder: it cannot be frozen: the latent of a frame changes with later frames "
            f"(by {change.item():.2g} of the latents' spread), so a predictor would see the future. "
            "Show a video encoder one frame at a time: encoder: {kind: per_frame, of: {kind: video_vit, …}}"
        )
