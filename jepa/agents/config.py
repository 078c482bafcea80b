"""Settings of what acts without planning. Imports no torch."""

from pydantic import Field

from jepa.config import Config
from jepa.config.fields import Count, NonNegative, Positive, Share


class InverseSettings(Config):
    """How inverse dynamics are fitted: Adam steps of `batch` pairs each, on a network of `layers` x `hidden` units."""

    updates: Count = 2000
    batch: Count = 256
    lr: Positive = Field(default=1e-3, le=1, description="of the first step; it falls to 0 along a cosine")
    hidden: Count = 256
    layers: int = Field(default=2, ge=0)
    ahead: Count | None = Field(default=None, description="latent steps to a goal, at most; none: all of a clip")
    time_penalty: NonNegative = Field(
        default=0.0, description="how much less slow recordings count; 0: all count the same"
    )
    expectile: Share = Field(
        default=0.2, gt=0, lt=1, description="expectile of the steps taken that counts as the fewest possible"
    )
    bf16: bool = Field(default=False, description="fitted in bf16, about three times faster on CPUs that have it")
