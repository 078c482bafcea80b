"""Settings of policies without planning. Imports no torch."""

from typing import Literal

from pydantic import Field

from jepa.config import Config
from jepa.config.fields import Count, NonNegative, Positive, Share


class InverseSettings(Config):
    """Fit of the inverse dynamics: `updates` Adam steps on `batch` pairs, for an MLP of `layers` x `hidden` units."""

    updates: Count = 2000
    batch: Count = 256
    lr: Positive = Field(default=1e-3, le=1, description="initial learning rate; cosine decay to 0")
    hidden: Count = 256
    layers: int = Field(default=2, ge=0)
    ahead: Count | None = Field(
        default=None, description="maximum number of latent steps to a goal; none: the whole clip"
    )
    time_penalty: NonNegative = Field(
        default=0.0, description="down-weights recordings that reach the goal slowly; 0: equal weights"
    )
    expectile: Share = Field(
        default=0.2, gt=0, lt=1, description="expectile of the number of steps to a goal that estimates the minimum"
    )
    bf16: bool | Literal["auto"] = Field(
        default=False,
        description="fit in bf16, about three times faster on CPUs that have it and many times slower on others; auto: "
        "where the hardware has it",
    )
