"""The config of `jepa probe`. Imports no torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jepa.config import Component, Config, part
from jepa.config.fields import Count, Positive
from jepa_probes.probing import PROBES


class ClipsConfig(Config):
    """The clips that probes are fitted to and scored on, and what they are asked."""

    shards: str | None = Field(
        default=None, description="folder of shards to probe on; none: the run's. A model without a run needs it"
    )
    fps: Positive | None = Field(default=None, description="with `shards`: rate of the clips; none: the model's")
    train_episodes: Count | None = Field(default=None, description="fit on at most so many episodes; none: all")
    test_episodes: Count | None = None
    clip_frames: Count | None = Field(default=None, description="frames per clip; none: as in training")
    clips_per_video: Count = 2
    headline: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="groups of states, such as [bodies.position], whose mean R² is state_r2; none: position and "
        "velocity of the puck, without one of all bodies, and without any all states",
    )
    labels: tuple[str, ...] | None = Field(default=None, description="labels to classify; none: all of the data set")
    seed: int = Field(default=0, ge=0)

    def episodes(self, split: str) -> int | None:
        """The most of a split that are read; None: all."""
        return self.train_episodes if split == "train" else self.test_episodes


class ProbeConfig(ClipsConfig):
    """`jepa probe`: how much data and effort the probes get."""

    pixel_side: Count = Field(
        default=8, description="side to which images are averaged for the pixels, which the PCA reads too"
    )
    few_episodes: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(),
        description="the state is also read by maps that are fitted to so many training episodes, such as [10, 50]",
    )
    classifiers: tuple[Annotated[Component, part(PROBES)], ...] = Field(
        default=({"kind": "linear"}, {"kind": "attentive"}, {"kind": "knn"}),
        validate_default=True,
        description="probes that are fitted on every label, each kind once",
    )
    spatial: tuple[Literal["mask", "depth", "keypoints"], ...] = Field(
        default=(), description="arrays of the shards that are read off tokens by ridge regression; none: not probed"
    )
    spatial_grid: Count = Field(default=8, description="cells on a side to which masks and depth are averaged")
    supervised: bool = Field(
        default=True, description="also train an encoder on the true states, with the budget of the run"
    )

    @model_validator(mode="after")
    def _rows_have_one_probe(self) -> Self:
        kinds = [classifier.kind for classifier in self.classifiers]
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise ValueError(f"classifiers: expected each kind once, found {', '.join(twice)} twice")
        return self
