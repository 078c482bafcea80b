"""Masked predictors in the native format, in a folder beside the model they belong to: RUN/model/predictor.

The model itself needs no predictor. It is kept so that weights go out as they came in, and a cooldown can start from
it.
"""

from pathlib import Path
from typing import Any

from jepa.config import UserError
from jepa.models import checkpoint
from jepa.predictors.masked import MaskedPredictor

FOLDER = "predictor"


def save_predictor(model: Path, predictor: MaskedPredictor) -> None:
    """Write the predictor beside the model in the folder `model`."""
    checkpoint.save(model / FOLDER, predictor, {"kind": "masked_predictor", "settings": _settings(predictor)})


def load_predictor(model: Path) -> MaskedPredictor | None:
    """The predictor saved beside the model, in evaluation mode; None if there is none.

    Raises:
        UserError: it is damaged, or its description is of something else.
    """
    folder = model / FOLDER
    if not folder.is_dir():
        return None
    description = checkpoint.read_description(folder)
    try:
        settings = description["settings"]
        names = MaskedPredictor.Config.model_fields
        config = MaskedPredictor.Config(**{name: value for name, value in settings.items() if name in names})
        predictor = MaskedPredictor(config, **{name: x for name, x in settings.items() if name not in names})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: does not describe a masked predictor ({error})") from None
    checkpoint.load_into(predictor, folder)
    return predictor.eval()


def _settings(predictor: MaskedPredictor) -> dict[str, Any]:
    return predictor.config.model_dump(exclude={"kind"}) | predictor.shape
