"""The config of `jepa probe`. Imports no torch."""

from pydantic import Field

from jepa.config import Config
from jepa.config.fields import Count, Positive


class ProbeConfig(Config):
    """`jepa probe`: how much data and effort the probes get."""

    shards: str | None = Field(
        default=None, description="folder of shards to probe on; none: the run's. A model without a run needs it"
    )
    fps: Positive | None = Field(default=None, description="with `shards`: rate of the clips; none: the model's")
    train_episodes: Count | None = Field(default=None, description="fit on at most so many episodes; none: all")
    test_episodes: Count | None = None
    clip_frames: Count | None = Field(default=None, description="frames per clip; none: as in training")
    clips_per_video: Count = 2
    labels: tuple[str, ...] | None = Field(default=None, description="labels to classify; none: all of the data set")
    supervised: bool = Field(
        default=True, description="also train an encoder on the true states, with the budget of the run"
    )
    seed: int = Field(default=0, ge=0)
