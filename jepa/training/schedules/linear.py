"""The cooldown of V-JEPA 2 (2506.09985): it would end at the first step that is not taken."""

from typing import Literal

from pydantic import Field

from jepa.config import Component
from jepa.training.schedules.wsd import WSD


class Linear(WSD):
    class Config(Component):  # pyright: ignore[reportIncompatibleVariableOverride]
        """A straight line from `optimizer.lr` to `final_lr` over the whole run: V-JEPA 2's cooldown."""

        kind: Literal["linear"] = "linear"
        final_lr: float = Field(default=0.0, ge=0)

    def __init__(self, config: Config, lr: float, steps: int) -> None:
        super().__init__(WSD.Config(decay_steps=steps, final_lr=config.final_lr), lr, steps)
