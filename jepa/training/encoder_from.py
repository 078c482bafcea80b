"""Where a frozen encoder comes from: `method.encoder_from` names a run, a model folder or a hub id.

Without it the encoder is as the config describes it: with timm's weights (`pretrained: true`), or random ones.
A video encoder is given one frame at a time, twice, as in V-JEPA 2-AC."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from jepa.config import UserError
from jepa.encoders.base import EncoderConfig
from jepa.encoders.module import Encoder
from jepa.encoders.per_frame import PerFrameEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.methods import METHODS
from jepa.models.build import build_encoder
from jepa.models.checkpoint import DESCRIPTION, check_tensors
from jepa.models.config import ModelConfig
from jepa.models.model import model_folder, open_model, read_config
from jepa.training.config import PretrainConfig
from jepa_data.transforms import IMAGENET_MEAN, IMAGENET_STD

RANDOM = "the encoder is frozen with random weights; name trained ones: method.encoder_from, or encoder.pretrained"
ALIKE = 1e-3  # of the spread of latents: what sums in another order may differ by


@dataclass(frozen=True)
class EncoderOrigin:
    """What training starts from: the mean and std of the encoder's pixels, and what a user should know of it."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    notes: tuple[str, ...] = ()


def resolved(config: PretrainConfig) -> tuple[PretrainConfig, EncoderOrigin]:
    """The config with the encoder that `method.encoder_from` names written out, and what was found there.

    Raises:
        UserError: there is no model, or the config describes another encoder.
    """
    name = config.method.encoder_source()
    if name is None:
        assert config.encoder is not None, "PretrainConfig sees to it"
        frozen = "encoder" in METHODS[config.method.kind].frozen
        if frozen and not config.encoder.has_weights:
            return config, EncoderOrigin(notes=(RANDOM,))
        return config, EncoderOrigin()
    about = describe(name)
    wrapped = about.encoder.per_frame()
    if config.encoder is not None and (differ := _differences(config.encoder, wrapped)):
        raise UserError(f"encoder: {name} (method.encoder_from) holds another one: {differ}; leave `encoder` out")
    pixels = about.preprocessing
    data = config.data
    # What it was trained to see, unless this run says otherwise.
    seen = {key: getattr(pixels, key) for key in ("fit", "shortest_edge") if key not in data.model_fields_set}
    updated = {"encoder": config.encoder or wrapped, "data": type(data).model_validate(data.model_dump() | seen)}
    return config.model_copy(update=updated), EncoderOrigin(pixels.mean, pixels.std)


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


def open_frozen(name: str) -> tuple[ModelConfig, Encoder]:
    """What a run, a model folder or the hub holds, and its encoder, frozen, for single latent steps.

    Raises:
        UserError: there is no such model, or its latents depend on other frames than their own.
    """
    about = describe(name)
    size = about.preprocessing.image_size
    encoder = load_frozen(name, about.encoder.per_frame(), size, about.frames).eval().requires_grad_(False)
    check_freezable(encoder, size, encoder.tubelet)
    return about, encoder


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


def describe(name: str) -> ModelConfig:
    """Of the model that a run, a model folder or the hub holds; its weights are not read where a file tells it."""
    folder = model_folder(Path(name))
    if (folder / DESCRIPTION).is_file():
        return read_config(folder)
    return open_model(name).config


def _differences(config: EncoderConfig, trained: EncoderConfig) -> str:
    """What differs in words; nothing if the same weights fit both."""
    ours = config.weights_key()
    theirs = trained.weights_key()
    if ours == theirs:
        return ""
    ours |= {"kind": config.kind}
    theirs |= {"kind": trained.kind}
    names = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    return ", ".join(f"{name} {theirs.get(name)!r} and not {ours.get(name)!r}" for name in names[:3])
