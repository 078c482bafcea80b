"""The config of `jepa decoder`."""

from typing import Annotated

from pydantic import Field

from jepa.config import DEFAULT, Component, Config, part
from jepa.config.fields import Count, NonNegative
from jepa.decoders import DECODERS

FITTED = ("pixels", "diffusion")


class FitConfig(Config):
    """`jepa decoder`: which decoder, how it is fitted, and what it is measured on."""

    decoder: Annotated[Component, part(DECODERS, "pixels")] = DEFAULT
    own: bool = Field(
        default=False, description="take the decoder that the run's method trained (vae, dreamer), instead of `decoder`"
    )
    steps: Count = Field(default=1000, description="optimizer steps on 64 images each")
    clips: Count = Field(default=640, description="training clips, at most; of each frame that ends a latent step")
    clip_frames: Count | None = Field(default=None, description="frames per clip; none: as in training")
    moving_weight: NonNegative = Field(
        default=0.1, description="extra weight of a pixel that moves as much as pixels do on average, beside 1"
    )
    test_clips: Count = Field(default=100, description="held-out clips that it is measured on, at most")
    near: float = Field(default=2.0, gt=0, description="pixels within which an object counts as found in its place")
    seed: int = Field(default=0, ge=0)
    overwrite: bool = Field(default=False, description="fit again where the run has this decoder")
