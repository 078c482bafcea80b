"""`model.json`: what it takes to build a trained model again."""

from typing import Annotated, Literal

from pydantic import Field

from jepa.config import Config, part
from jepa.config.fields import Count, Positive
from jepa.encoders import ENCODERS
from jepa.encoders.base import EncoderConfig
from jepa.predictors import PREDICTORS
from jepa.predictors.base import PredictorConfig
from jepa_data.actions import ActionStats


class SpecConfig(Config):
    """jepa.world_model.LatentSpec."""

    tokens: Count
    width: Count
    step_seconds: Positive
    frames_per_step: Count
    action_size: Count | None = None
    history: Count = 1
    states: tuple[str, ...] = ()
    actions: ActionStats | None = Field(
        default=None, description="range, mean and deviation of raw actions; none: not known, -1..1 is assumed"
    )


class PreprocessingConfig(Config):
    """jepa_data.preprocessing.Preprocessing."""

    image_size: Count
    fps: Positive
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    fit: Literal["crop", "stretch"] = "crop"
    shortest_edge: Count | None = None
    clip_frames: Count | None = None


class ModelConfig(Config):
    """`model.json`: all that it takes to build a model again and to prepare video for it."""

    method: str = Field(description="what trained it: a kind of method, or where the weights were imported from")
    frames: Count = Field(description="length of the clips it was trained on")
    encoder: Annotated[EncoderConfig, part(ENCODERS)]
    dynamics: Annotated[PredictorConfig, part(PREDICTORS)] | None = None
    spec: SpecConfig
    preprocessing: PreprocessingConfig
