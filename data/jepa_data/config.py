"""What a run says about its data. Light: importing it does not import torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jepa.config import Config, UserError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Access(Config):
    """How shards that are not on this machine are read. Part of a config, under `data.remote`."""

    read: Literal["range", "whole"] = Field(
        default="range",
        description="range: only the bytes of a sample; whole: fetch each shard once, for stores that cannot seek",
    )
    cache: str = Field(default="~/.cache/openjepa", description="folder for what is fetched")
    cache_gib: float = Field(
        default=20.0, gt=0, description="of fetched files; the ones unused for longest are deleted beyond it"
    )
    allow_pipe: bool = Field(default=False, description="let `pipe:` run its shell command")
    attempts: int = Field(default=3, gt=0, description="times a request is tried")
    timeout_seconds: float = Field(default=60.0, gt=0, description="for one request or command")


class SourceConfig(Config):
    """One of several corpora that a run draws from."""

    shards: str = Field(description="folder or address")
    weight: float = Field(default=1.0, gt=0, description="share of the clips; weights need not sum to 1")
    skip: str | None = Field(default=None, description="quarantine file of `jepa data check`: samples to leave out")


class CropConfig(Config):
    """A random part of each clip, cut and scaled by the decoder."""

    scale: tuple[Share, Share] = Field(default=(0.3, 1.0), description="range of its area, as a share of the image's")
    ratio: tuple[Positive, Positive] = Field(default=(0.75, 1.35), description="range of width / height")


class AugmentConfig(Config):
    """Changes made on the training device, in batch, drawn once a clip."""

    crop: CropConfig | None = Field(default=None, description="a random part, scaled back to the size of the clip")
    flip: Share = Field(default=0.0, description="probability of a mirror image; for video without actions")
    color: float = Field(
        default=0.0, ge=0, le=1, description="strength of jitter in brightness, contrast and saturation"
    )
    gray: Share = Field(default=0.0, description="probability of grayscale")


class StreamConfig(Config):
    """How clips are cut from folders of shards."""

    shards: str | tuple[SourceConfig, ...] = Field(
        description="folder or address of shards, or a list of {shards, weight} to mix"
    )
    batch_size: int = Field(gt=0, description="clips per batch, over all ranks together")
    clip_frames: int = Field(gt=0, description="frames per clip")
    fps: float | None = Field(default=None, gt=0, description="frames per second of the clips; none: the video's own")
    stride: int = Field(default=1, gt=0, description="instead of fps: every n-th frame of the video")
    clips_per_video: int = Field(default=1, gt=0, description="clips cut from each video in an epoch")
    start: Literal["random", "spread"] = Field(
        default="random", description="of clips in training: anywhere, or each in its own part of the video"
    )
    backend: Literal["pyav", "decord", "torchcodec"] = Field(default="pyav", description="the decoder")
    workers: int = Field(default=0, ge=0, description="processes or threads that decode; 0: the training process does")
    worker_kind: Literal["process", "thread"] = Field(default="process", description="what workers are")
    short: Literal["error", "skip"] = Field(default="error", description="what to do with videos shorter than a clip")
    max_bad_fraction: Share = Field(default=0.01, description="of the samples; one bad sample passes unless 0")
    image_size: int | None = Field(
        default=None, gt=0, description="side in pixels of the square clips; none: as stored"
    )
    fit: Literal["crop", "stretch"] = Field(
        default="crop", description="how other shapes become square: the middle part, or all of it out of proportion"
    )
    shortest_edge: int | None = Field(
        default=None,
        gt=0,
        description="with fit=crop, the short side is scaled to this before the middle image_size is cut; none: to it",
    )
    crop: CropConfig | None = Field(default=None, description="random resized crops in training; none: the whole image")
    augment: AugmentConfig = Field(default=AugmentConfig.model_validate({}), description="on the training device")
    cache_mib: int = Field(default=256, ge=0, description="decoded images that each process caches; 0: none")
    window_shards: int = Field(default=64, gt=0, description="shards that are shuffled together")
    start_seconds: float | None = Field(
        default=None, ge=0, description="where clips start in evaluation; none: centered"
    )
    decode_seconds: float = Field(default=60.0, gt=0, description="longest time the decoding of one clip may take")
    stall_seconds: float = Field(
        default=120.0, gt=0, description="time without a batch after which the stacks of all threads are logged"
    )
    quarantine: str | None = Field(default=None, description="file to which bad samples are appended, a JSON line each")
    skip: str | None = Field(default=None, description="quarantine file of `jepa data check`: samples to leave out")
    spatial: tuple[Literal["mask", "depth", "keypoints", "pose"], ...] = Field(
        default=(), description="arrays that belong to the frames, in `ClipBatch.spatial`; none: they are not read"
    )
    events: bool = Field(
        default=True, description="read the named events of shards that have them: predictors take them as a condition"
    )
    remote: Access = Field(default=Access.model_validate({}), description="how shards elsewhere are read")

    @property
    def sources(self) -> tuple[SourceConfig, ...]:
        """What clips are drawn from."""
        if isinstance(self.shards, str):
            return (SourceConfig(shards=self.shards, weight=1.0, skip=self.skip),)
        return self.shards

    @property
    def folder(self) -> str:
        """The one folder of shards. Raises UserError for a mix, which has no held-out episodes of its own."""
        if len(self.sources) > 1:
            names = ", ".join(source.shards for source in self.sources)
            raise UserError(f"this needs one folder of shards, and the run was trained on a mix: {names}")
        return next(iter(self.sources)).shards

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the clips; None: as stored."""
        if self.image_size is None:
            return None
        return self.image_size, self.image_size

    @property
    def has_worker_processes(self) -> bool:
        """Whether other processes than the training process decode."""
        return self.workers > 0 and self.worker_kind == "process"

    def rate_text(self) -> str:
        """What follows "12 frames" in a sentence: " at 10 fps", ", every 3th"; "" where clips have every frame."""
        if self.fps is not None:
            return f" at {self.fps:g} fps"
        return f", every {self.stride}th" if self.stride > 1 else ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.sources:
            raise ValueError("shards: expected a folder or a list of at least one source, found an empty list")
        if self.skip is not None and not isinstance(self.shards, str):
            raise ValueError("skip belongs to one corpus: write it beside its shards, {shards: …, weight: …, skip: …}")
        if self.fps is not None and self.stride != 1:
            raise ValueError("fps and stride exclude each other; leave one out")
        if len(set(self.spatial)) < len(self.spatial):
            raise ValueError(f"spatial: expected each kind once, found {', '.join(self.spatial)}")
        if "pose" in self.spatial and self.augment.flip:
            raise ValueError("augment.flip: poses are in the world and cannot be mirrored; leave flip or pose out")
        if self.crop is not None and self.image_size is None:
            raise ValueError("crop needs image_size, the side of the images it makes")
        if self.shortest_edge is not None and (self.image_size is None or self.shortest_edge < self.image_size):
            sizes = "no image_size" if self.image_size is None else f"{self.shortest_edge} below {self.image_size}"
            raise ValueError(f"shortest_edge: expected image_size and a number that is not below it, found {sizes}")
        return self
