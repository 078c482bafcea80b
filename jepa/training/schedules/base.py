"""What schedules share: a factor of the learning rate by step, after a warm-up. Imports no torch."""

import logging
from abc import ABC, abstractmethod

from pydantic import Field

from jepa.config import Component

logger = logging.getLogger(__name__)


class WarmupConfig(Component):
    """A line from `start_lr` to `optimizer.lr`."""

    warmup_steps: int = Field(default=0, ge=0)
    start_lr: float = Field(default=0.0, ge=0)


class Schedule(ABC):
    """A line that leaves `start_lr` with the first step and is at 1 in the last one of the warm-up, as V-JEPA counts.

    Made from its `Config`, the learning rate and the steps of the run. Raises ValueError if it does not fit into them.
    """

    Config: type[Component]

    def __init__(self, config: WarmupConfig, lr: float, steps: int) -> None:
        if config.warmup_steps > steps:
            logger.warning(
                "schedule.warmup_steps is %d and the run has %d steps: the learning rate ends below optimizer.lr",
                config.warmup_steps,
                steps,
            )
        self.warmup_steps = config.warmup_steps
        self.start = config.start_lr / lr
        self.steps = steps

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.start + (1 - self.start) * (step + 1) / self.warmup_steps
        return self.after_warmup(step)

    @abstractmethod
    def after_warmup(self, step: int) -> float: ...
