"""The config of `jepa play`. Imports no torch."""

from typing import Annotated

from pydantic import Field

from jepa.config import DEFAULT, Component, Config, part
from jepa.config.fields import Count, NonNegative
from jepa.planners import PLANNERS


class PlayConfig(Config):
    """`jepa play`: how fast a world is imagined, and how goals are planned. The page changes the first four."""

    fps: int = Field(default=30, gt=0, le=120, description="frames a second; each is one imagined latent step")
    truth: bool = Field(default=False, description="show the true world and the drift from the beginning")
    temperature: NonNegative = Field(
        default=1.0, le=10, description="of samples, for dynamics that predict a distribution; 0: their mean"
    )
    keep_grounded: bool = Field(default=False, description="imagine each step from the true frames before it")
    seed: int = Field(default=0, ge=0, description="of the episodes that are played, of noise and of plans")
    horizon: Count = Field(
        default=6, description="latent steps of a plan to a clicked goal; one is taken, then replanned"
    )
    planner: Annotated[Component, part(PLANNERS, "cem", samples=32, elites=4, iterations=3)] = DEFAULT
    max_goal_steps: Count = Field(default=300, description="latent steps after which a goal is given up")
    readout_images: int = Field(
        default=256,
        ge=8,
        description="rendered moments: drift is relative to their latents, and places are read off by a fit to them",
    )
    threads: Count = Field(default=1, description="of torch, which computes beside the browser")
