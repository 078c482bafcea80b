"""Encoders that are frozen: where their weights come from, and whether they can be frozen at all.

method.encoder_from: RUN   the encoder of a run, a model folder or the hub; a video encoder is shown stills of two equal
                           frames, as V-JEPA 2-AC does (`encoder: {kind: stills, of: …}` says so in the run's config)
encoder: {…}               as described: with timm's own weights (`pretrained: true`), or random ones
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa.config import UserError, from_dict
from jepa.encoders.stills import StillsEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.export import checkpoint
from jepa.export.checkpoint import check_tensors
from jepa.runs.build import AnyEncoder, build_encoder
from jepa.runs.model import DESCRIBED, open_model
from jepa.runs.schema import (
    Encoder,
    FrameConfig,
    FrozenEncoderConfig,
    ModelConfig,
    PretrainConfig,
    StillsConfig,
    VideoViTConfig,
)

ALIKE = 1e-3  # of the spread of latents: what sums in another order may differ by


@dataclass(frozen=True)
class Source:
    """What `encoder_from` names: its encoder, and the pixels it was trained on."""

    encoder: Encoder
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def resolved(config: PretrainConfig) -> tuple[PretrainConfig, Source | None]:
    """The config with the encoder that `method.encoder_from` names written out, and what was found there.

    Raises:
        UserError: there is no model, or the config describes another encoder.
    """
    method = config.method
    if not isinstance(method, FrozenEncoderConfig) or method.encoder_from is None:
        return config, None
    about = _description(method.encoder_from)
    found = about.encoder
    wrapped = StillsConfig(of=found) if isinstance(found, VideoViTConfig) else found
    if config.encoder is not None and not _fits(config.encoder, wrapped):
        differ = _differences(config.encoder.model_dump(), wrapped.model_dump())
        raise UserError(
            f"encoder: {method.encoder_from} (method.encoder_from) holds another one: {differ}; leave `encoder` out"
        )
    p, data = about.preprocessing, config.data
    # What it was trained to see, unless this run says otherwise.
    seen = {name: getattr(p, name) for name in ("fit", "shortest_edge") if name not in data.model_fields_set}
    updated = {"encoder": config.encoder or wrapped, "data": type(data).model_validate(data.model_dump() | seen)}
    return config.model_copy(update=updated), Source(wrapped, p.mean, p.std)


def load_frozen(name: str, described: Encoder, image_size: int, frames: int) -> AnyEncoder:
    """The encoder of a model with its weights, for clips of this size.

    Raises:
        UserError: there is no model, or it cannot read clips of this size.
    """
    found = open_model(name).world.encoder
    encoder = build_encoder(described, image_size, frames)
    inner = encoder.encoder if isinstance(encoder, StillsEncoder) and isinstance(found, VideoViT) else encoder
    weights = found.state_dict()
    check_tensors(inner.state_dict(), weights, f"method.encoder_from: at {image_size} px the encoder of {name}")
    inner.load_state_dict(weights)
    return encoder


@torch.no_grad()
def check_freezable(encoder: nn.Module, image_size: int, tubelet: int) -> None:
    """Try it, on two latent steps of noise: a latent shall follow from its own frames alone.

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
        whole, alone = encoder(video), encoder(video[:, :tubelet])
    finally:
        encoder.train(training)
    change: Tensor = (whole[:, :1] - alone).abs().max() / whole.std().clamp_min(1e-6)
    if not change <= ALIKE:
        raise UserError(
            "encoder: it cannot be frozen: the latent of a frame changes with later frames "
            f"(by {change.item():.2g} of the latents' spread), so that a prediction of it would be told the future. "
            "Show a video encoder one frame at a time: encoder: {kind: stills, of: {kind: video_vit, …}}"
        )


def random_weights(config: PretrainConfig) -> bool:
    """Whether the encoder that is frozen never learned anything."""
    method, encoder = config.method, config.encoder
    if not isinstance(method, FrozenEncoderConfig) or method.encoder_from is not None:
        return False
    return not (isinstance(encoder, FrameConfig) and encoder.pretrained)


def _description(name: str) -> ModelConfig:
    """Of the model that a run, a model folder or the hub holds; its weights are not read where a file tells it."""
    folder = Path(name)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    if not (folder / checkpoint.DESCRIPTION).is_file():
        return open_model(name).config
    described = {k: v for k, v in checkpoint.read_description(folder).items() if k not in DESCRIBED}
    return from_dict(described, ModelConfig, source=str(folder / checkpoint.DESCRIPTION))


def _fits(described: Encoder, found: Encoder) -> bool:
    """Whether these are the same, but for what weights do not depend on."""
    return _essence(described) == _essence(found)


def _essence(encoder: Encoder) -> dict[str, Any]:
    if isinstance(encoder, StillsConfig):
        return _essence(encoder.of)
    return encoder.model_dump(exclude={"pretrained", "size", "checkpoint_every"})


def _differences(described: dict[str, Any], found: dict[str, Any]) -> str:
    if "of" in described and "of" in found:
        described, found = described["of"], found["of"]
    names = [name for name in described | found if described.get(name) != found.get(name) and name != "size"]
    return ", ".join(f"{name} {found.get(name)!r} and not {described.get(name)!r}" for name in names[:3])
