"""Parts in the native format, in folders beside the model that they belong to.

RUN/model/predictor   a masked predictor: kept so that weights go out as they came in, and a cooldown can start from it
RUN/model/pixels      a decoder; each kind in a folder of its name
"""

from pathlib import Path
from typing import Any

from jepa.config import errors_of
from jepa.decoders import DECODERS
from jepa.decoders.base import Decoder
from jepa.models import checkpoint
from jepa.predictors.masked import MaskedPredictor

PREDICTOR = "predictor"
DECODER = "decoder"
OLD_DECODER = "pixel_decoder"


def save_predictor(model: Path, predictor: MaskedPredictor) -> None:
    """Write the predictor beside the model in the folder `model`."""
    settings = predictor.config.model_dump(exclude={"kind"}) | predictor.shape
    checkpoint.save(model / PREDICTOR, predictor, {"kind": "masked_predictor", "settings": settings})


def load_predictor(model: Path) -> MaskedPredictor | None:
    """The predictor saved beside the model, in evaluation mode; None if there is none.

    Raises:
        UserError: it is damaged, or its description is of something else.
    """
    folder = model / PREDICTOR
    return checkpoint.load_part(folder, "a masked predictor", _predictor) if folder.is_dir() else None


def _predictor(description: dict[str, Any]) -> MaskedPredictor:
    settings = description["settings"]
    names = MaskedPredictor.Config.model_fields
    config = MaskedPredictor.Config(**{name: value for name, value in settings.items() if name in names})
    return MaskedPredictor(config, **{name: x for name, x in settings.items() if name not in names})


def save_decoder(model: Path, decoder: Decoder) -> None:
    """Write the decoder beside the model in the folder `model`, in place of one of its kind."""
    tokens, width = decoder.shape
    about = {"tokens": tokens, "width": width, "image_size": decoder.image_size}
    about |= {"decoder": decoder.config.model_dump(mode="json")}
    checkpoint.save(model / decoder.config.kind, decoder, {"kind": DECODER} | about)


def load_decoder(model: Path, kind: str, dynamics: Any = None) -> Decoder:
    """The decoder of a kind that was saved beside the model, in evaluation mode and frozen.

    Args:
        dynamics: of the model, for a decoder that reads their state.

    Raises:
        UserError: there is none, it is damaged, or it does not fit the dynamics.
    """
    decoder = checkpoint.load_part(model / kind, "a decoder", _decoder)
    with errors_of(str(model / kind)):
        return decoder.requires_grad_(False).bind(dynamics)


def _decoder(description: dict[str, Any]) -> Decoder:
    if description["kind"] == OLD_DECODER:  # of an earlier version
        settings = description["settings"]
        config = {"kind": "pixels", "channels": settings["channels"], "hidden": 256, "layers": 1}
        description = settings | {"decoder": config}
    kind = description["decoder"]["kind"]
    config = DECODERS.config(kind).model_validate(description["decoder"])
    return DECODERS.make(config, description["tokens"], description["width"], description["image_size"])
