"""Warm-up, stable, decay: only the last steps depend on the length of the run."""

from typing import Literal

from pydantic import Field

from jepa.training.schedules.base import Schedule, WarmupConfig


class WSD(Schedule):
    class Config(WarmupConfig):
        """Linear warm-up from `start_lr`, stable, then a straight line to `final_lr` over the last `decay_steps`."""

        kind: Literal["wsd"] = "wsd"
        decay_steps: int = Field(default=0, ge=0)
        final_lr: float = Field(default=0.0, ge=0)

    def __init__(self, config: Config, lr: float, steps: int) -> None:
        super().__init__(config, lr, steps)
        if config.warmup_steps + config.decay_steps > steps:
            raise ValueError(
                f"the warm-up and the decay take {config.warmup_steps} + {config.decay_steps} steps, the run has "
                f"{steps}; shorten schedule.warmup_steps or schedule.decay_steps, or raise trainer.steps"
            )
        self.decay_steps = config.decay_steps
        self.final = config.final_lr / lr

    def after_warmup(self, step: int) -> float:
        left = max(0, self.steps - step)
        if left >= self.decay_steps:
            return 1.0
        return self.final + (1 - self.final) * left / self.decay_steps
