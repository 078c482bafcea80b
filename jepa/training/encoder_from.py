"""Where a frozen encoder comes from: `method.encoder_from` names a run, a model folder or a hub id.

Without it the encoder is as the config describes it: with timm's weights (`pretrained: true`), or random ones.
A video encoder is given one frame at a time, twice, as in V-JEPA 2-AC."""

from dataclasses import dataclass
from pathlib import Path

from jepa.config import UserError, from_dict
from jepa.encoders.base import EncoderConfig
from jepa.methods import METHODS
from jepa.models import checkpoint
from jepa.models.config import ModelConfig
from jepa.models.model import FILE_KEYS, open_model
from jepa.training.config import PretrainConfig


@dataclass(frozen=True)
class Source:
    """What `encoder_from` names: its encoder, and the pixels it was trained on."""

    encoder: EncoderConfig
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def resolved(config: PretrainConfig) -> tuple[PretrainConfig, Source | None]:
    """The config with the encoder that `method.encoder_from` names written out, and what was found there.

    Raises:
        UserError: there is no model, or the config describes another encoder.
    """
    origin = config.method.encoder_source()
    if origin is None:
        return config, None
    about = _description(origin)
    wrapped = about.encoder.per_frame()
    if config.encoder is not None and (differ := _differences(config.encoder, wrapped)):
        raise UserError(f"encoder: {origin} (method.encoder_from) holds another one: {differ}; leave `encoder` out")
    p, data = about.preprocessing, config.data
    # What it was trained to see, unless this run says otherwise.
    seen = {name: getattr(p, name) for name in ("fit", "shortest_edge") if name not in data.model_fields_set}
    updated = {"encoder": config.encoder or wrapped, "data": type(data).model_validate(data.model_dump() | seen)}
    return config.model_copy(update=updated), Source(wrapped, p.mean, p.std)


def random_weights(config: PretrainConfig) -> bool:
    """Whether the encoder that is frozen never learned anything."""
    encoder = config.encoder
    if "encoder" not in METHODS[config.method.kind].frozen or config.method.encoder_source() is not None:
        return False
    return encoder is not None and not encoder.has_weights


def _description(name: str) -> ModelConfig:
    """Of the model that a run, a model folder or the hub holds; its weights are not read where a file tells it."""
    folder = Path(name)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    if not (folder / checkpoint.DESCRIPTION).is_file():
        return open_model(name).config
    described = {k: v for k, v in checkpoint.read_description(folder).items() if k not in FILE_KEYS}
    return from_dict(described, ModelConfig, source=str(folder / checkpoint.DESCRIPTION))


def _differences(described: EncoderConfig, trained: EncoderConfig) -> str:
    """What differs in words; nothing if the same weights fit both."""
    ours, theirs = described.weights_key(), trained.weights_key()
    if ours == theirs:
        return ""
    ours |= {"kind": described.kind}
    theirs |= {"kind": trained.kind}
    names = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    return ", ".join(f"{name} {theirs.get(name)!r} and not {ours.get(name)!r}" for name in names[:3])
