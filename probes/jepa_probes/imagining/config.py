"""The config of `jepa imagine`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from jepa.config import Config
from jepa.config.fields import Count, Positive


class ImagineConfig(Config):
    """`jepa imagine`: what the model sees, the actions it is told, and how much of the future it imagines."""

    clip: int = Field(default=0, ge=0, description="number of the held-out clip to start from")
    video: str | None = Field(default=None, description="a video file to start from, instead of a clip")
    world: str | None = Field(default=None, description="start from a reset of this world, instead of a clip")
    episode: int = Field(default=1_000_000, ge=0, description="with `world`: which episode")
    seed: int = Field(default=0, ge=0, description="of the world, of its policy and of sampling")
    actions: str | None = Field(
        default=None,
        description="a .npy, .csv or .json file of rows of actions, one for each frame from the last one seen (of a "
        "world: from its reset); or a policy of the world; none: as recorded, or the world's first policy",
    )
    keys: str | None = Field(
        default=None, description="actions as letters, for worlds with two: w up, s down, a left, d right, . none"
    )
    events: dict[Annotated[int, Field(ge=0)], str] = Field(
        default={},
        description="names of events by frame, such as {12: close-door, 20: open-door}; frames are counted as the rows "
        "of `actions`, from 0",
    )
    seen: Count | None = Field(
        default=None, description="latent steps that the model sees first; none: as many as it was trained with"
    )
    horizon: Count = Field(default=15, description="latent steps imagined, at most")
    samples: Count = Field(default=1, description="futures; more than 1 needs dynamics that predict a distribution")
    sampled: bool = Field(default=False, description="sample also a single future; without it, it is the mean")
    temperature: Positive = Field(default=1.0, description="of sampling")

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.video is not None and self.world is not None:
            raise ValueError("video and world exclude each other: give one to start from")
        if self.actions is not None and self.keys is not None:
            raise ValueError("actions and keys exclude each other; leave one out")
        if self.video is not None and self.actions is None and self.keys is None:
            raise ValueError("video: a file has no actions; give actions=FILE or keys=LETTERS")
        return self

    @property
    def draws(self) -> bool:
        """Whether futures are sampled."""
        return self.sampled or self.samples > 1
