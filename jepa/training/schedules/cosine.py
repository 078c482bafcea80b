"""Half a cosine, the schedule of most methods."""

import math
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from jepa.training.schedules.base import Schedule, WarmupConfig


class Cosine(Schedule):
    class Config(WarmupConfig):
        """Linear warm-up from `start_lr`, then a half cosine down to `final_lr` at the last step."""

        kind: Literal["cosine"] = "cosine"
        final_lr: float = Field(default=0.0, ge=0)

    def __init__(self, config: Config, lr: float, steps: int) -> None:
        super().__init__(config, lr, steps)
        self.decay = half_cosine(1.0, config.final_lr / lr, steps - config.warmup_steps)

    def after_warmup(self, step: int) -> float:
        return self.decay(step - self.warmup_steps)


def half_cosine(first: float, last: float, total_steps: int) -> Callable[[int], float]:
    """From `first` at step 0 to `last` at step `total_steps`: V-JEPA 1's weight decay, 0.04 to 0.4."""
    return lambda step: last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total_steps))))
