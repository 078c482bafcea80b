"""What a curation says: stages in the order they are applied. Light: importing it imports neither numpy nor a decoder.

A sample that one stage drops is not seen by the stages after it. What cannot be read is dropped before the first one,
and counted as `unreadable`. Images have no length and no motion: `too_short` and `static` let them through.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jepa.config import Config

SplitName = Literal["train", "val", "test"]


class TooShort(Config):
    """Videos of less than a length, in seconds, in frames, or both."""

    kind: Literal["too_short"] = "too_short"
    min_seconds: float = Field(0.0, ge=0, description="frames divided by the rate")
    min_frames: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.min_seconds and self.min_frames == 1:
            raise ValueError("too_short needs min_seconds or min_frames")
        return self


class Static(Config):
    """Videos in which nothing moves: the mean absolute difference of neighboring frames that were looked at."""

    kind: Literal["static"] = "static"
    min_motion: float = Field(0.5, gt=0, le=255, description="gray levels of 255, at 64 x 64 pixels")


class Dark(Config):
    """Videos that show too little light: the mean gray level."""

    kind: Literal["dark"] = "dark"
    min_brightness: float = Field(16.0, gt=0, le=255, description="gray levels of 255")


class Blurred(Config):
    """Videos without sharp edges: the variance of the Laplacian, the median of the frames that were looked at.

    It depends on the size of the images: `look.side` makes them alike, except for smaller ones.
    """

    kind: Literal["blurred"] = "blurred"
    min_sharpness: float = Field(20.0, gt=0, description="gray levels, squared")


class NearDuplicates(Config):
    """Videos that show what another one shows. The first one stays; test goes before val, and val before train.

    So a training video that is also in the test split is dropped, and never the one in the test split.

    By default perceptual hashes of four frames are compared. They find copies in another size, bitrate or file format,
    not other cuts of one scene: those are found with `embeddings`.
    """

    kind: Literal["near_duplicates"] = "near_duplicates"
    max_bits: float | None = Field(None, ge=0, le=15, description="of the 64 of a frame's hash, on average; 4 if unset")
    embeddings: str | None = Field(
        None, description="a table that `jepa embed` wrote of these shards (.npz or .parquet)"
    )
    min_cosine: float | None = Field(None, gt=0, le=1, description="of two mean latents; 0.95 if unset")
    center: bool = Field(False, description="take the mean of all samples off the latents first")

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if self.embeddings is None and (self.min_cosine is not None or self.center):
            raise ValueError("min_cosine and center compare embeddings; name their file: embeddings")
        if self.embeddings is not None and self.max_bits is not None:
            raise ValueError(
                "max_bits compares hashes, embeddings are compared by min_cosine; list two stages for both"
            )
        return self

    @property
    def bits(self) -> float:
        return 4.0 if self.max_bits is None else self.max_bits

    @property
    def cosine(self) -> float:
        return self.min_cosine or 0.95


class Balance(Config):
    """At most so many samples of each group: of each class of a label, or of each cluster of embeddings.

    Which ones stay is drawn from the seed and their keys. Samples that a label does not apply to (-1) all stay.
    """

    kind: Literal["balance"] = "balance"
    max_samples: int = Field(gt=0, description="samples of a group, in each split")
    label: str | None = Field(None, description="group by this label")
    embeddings: str | None = Field(
        None, description="group by k-means of a table that `jepa embed` wrote (.npz or .parquet)"
    )
    clusters: int = Field(32, gt=0, description="of the embeddings")
    splits: tuple[SplitName, ...] = Field(("train",), description="the other splits stay as they are")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_group(self) -> Self:
        if (self.label is None) == (self.embeddings is None):
            raise ValueError("balance needs either label or embeddings")
        return self


class Resample(Config):
    """Actions, states and frames on one clock, the frames': T frames, T-1 actions, T states.

    What was recorded at other times is brought to those of the frames; see `jepa_data.curate.resample` for where it is
    looked for. What has no measurement near enough to a frame is dropped.
    """

    kind: Literal["resample"] = "resample"
    actions: Literal["mean", "last", "sum"] = Field(
        "mean",
        description="an action is the mean of the command between two frames, the command at the first of them, "
        "or the sum of the steps recorded between them",
    )
    states: Literal["linear", "last"] = Field("linear", description="between two measurements; last: the one before")
    max_gap_seconds: float = Field(0.2, gt=0, description="longest time that actions and states may be missing for")


class Denoise(Config):
    """Takes noise out of the videos that stay, by a filter of FFmpeg. It drops nothing; without it, no pixel changes.

    These videos are encoded again (H.264), with the same frames, times and size; images are left as they are. The other
    stages look at the videos as they were.
    """

    kind: Literal["denoise"] = "denoise"
    method: Literal["nlmeans", "median", "temporal"] = Field(
        "nlmeans",
        description="non-local means of each frame; the median around each pixel; or, for a camera that stands, the "
        "mean over frames that differ little",
    )
    strength: float = Field(
        4.0,
        gt=0,
        le=30,
        description="of the noise: its standard deviation in gray levels of 255; median: radius in pixels",
    )
    crf: int = Field(14, ge=0, le=51, description="quality of x264, 0 is best")
    pixel_format: Literal["yuv444p", "yuv420p"] = Field(
        "yuv444p", description="yuv420p plays in every browser, halves the color's resolution and needs even sides"
    )

    @model_validator(mode="after")
    def _small_radius(self) -> Self:
        if self.method == "median" and self.strength > 9:
            raise ValueError(f"strength: of median it is a radius, 1 to 9 pixels; found {self.strength:g}")
        return self


Stage = Annotated[
    TooShort | Static | Dark | Blurred | NearDuplicates | Balance | Resample | Denoise,
    Field(discriminator="kind"),
]


class Look(Config):
    """What measuring looks at: a few frames of each video, evenly spread from the first to the last."""

    frames: int = Field(16, ge=4, description="of each video")
    side: int = Field(256, ge=64, description="pixels of the short side they are scaled to; smaller ones stay")


class CurateConfig(Config):
    """A curation."""

    stages: tuple[Stage, ...] = Field(description="in this order")
    look: Look = Field(default=Look.model_validate({}), description="what is looked at of each video")
    shard_mib: int = Field(64, gt=0, description="size of the shards that are written")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.stages:
            raise ValueError("stages: expected a list of at least one stage, found an empty list")
        if sum(isinstance(stage, Resample) for stage in self.stages) > 1:
            raise ValueError("stages: expected one resample stage at most")
        if sum(isinstance(stage, Denoise) for stage in self.stages) > 1:
            raise ValueError("stages: expected one denoise stage at most")
        return self
