"""A constant learning rate."""

from typing import Literal

from jepa.training.schedules.base import Schedule, WarmupConfig


class Flat(Schedule):
    class Config(WarmupConfig):
        """Linear warm-up from `start_lr`, then constant."""

        kind: Literal["flat"] = "flat"

    def after_warmup(self, step: int) -> float:
        return 1.0
