"""What a run says about its data. Light: importing it does not import torch."""

from typing import Literal

from pydantic import Field

from jepa.config import Config


class StreamConfig(Config):
    """How clips are cut from a folder of shards."""

    shards: str = Field(description="folder written by `jepa data record`")
    batch_size: int = Field(gt=0, description="clips per batch, over all ranks together")
    clip_frames: int = Field(gt=0, description="frames per clip")
    fps: float | None = Field(default=None, gt=0, description="frames per second of the clips; none: the video's own")
    clips_per_video: int = Field(default=1, gt=0, description="clips cut from each video in an epoch")
    backend: Literal["pyav", "decord"] = Field(default="pyav", description="the decoder")
    workers: int = Field(default=0, ge=0, description="processes that decode; 0: the training process does")
    short: Literal["error", "skip"] = Field(default="error", description="what to do with videos shorter than a clip")
    max_bad_fraction: float = Field(0.01, ge=0, le=1, description="of the samples; one bad sample passes unless 0")
    image_size: int | None = Field(
        default=None, gt=0, description="side in pixels of the square clips; none: as stored"
    )
    cache_mib: int = Field(default=256, ge=0, description="decoded videos each process keeps; 0: none")
    start_seconds: float | None = Field(
        default=None, ge=0, description="where clips start in evaluation; none: centred"
    )
    quarantine: str | None = Field(default=None, description="file to which bad samples are appended, a JSON line each")
