"""`model.json`: what it takes to build a trained model again."""

from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from jepa.config import Config, part
from jepa.config.fields import Count
from jepa.encoders import ENCODERS
from jepa.encoders.base import EncoderConfig
from jepa.predictors import PREDICTORS
from jepa.predictors.base import PredictorConfig
from jepa.world_model import LatentSpec, Preprocessing


class ModelConfig(Config):
    """`model.json`: all that it takes to build a model again and to prepare video for it."""

    method: str = Field(description="what trained it: a kind of method, or where the weights were imported from")
    frames: Count = Field(description="length of the clips it was trained on")
    encoder: Annotated[EncoderConfig, part(ENCODERS)]
    dynamics: Annotated[PredictorConfig, part(PREDICTORS)] | None = None
    spec: LatentSpec
    preprocessing: Preprocessing

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A model without events has the description that it always had."""
        values = handler(self)
        if not self.spec.events:
            values["spec"] = {k: v for k, v in values["spec"].items() if k != "events"}
        return values
