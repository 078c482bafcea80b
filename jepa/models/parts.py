"""Parts in the native format, in folders beside the model that they belong to.

RUN/model/predictor   a masked predictor: kept so that weights go out as they came in, and a cooldown can start from it
RUN/model/pixels      a pixel decoder
"""

from pathlib import Path
from typing import Any

from jepa.decoders.pixels import PixelDecoder
from jepa.models import checkpoint
from jepa.predictors.masked import MaskedPredictor

PREDICTOR = "predictor"
PIXELS = "pixels"


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


def save_pixel_decoder(model: Path, decoder: PixelDecoder) -> None:
    """Write the decoder beside the model in the folder `model`."""
    checkpoint.save(model / PIXELS, decoder, {"kind": "pixel_decoder", "settings": decoder.settings})


def load_pixel_decoder(model: Path) -> PixelDecoder:
    """The decoder saved beside the model. Raises UserError if there is none, or it is damaged."""
    decoder = checkpoint.load_part(
        model / PIXELS, "a pixel decoder", lambda description: PixelDecoder(**description["settings"])
    )
    return decoder.requires_grad_(False)
