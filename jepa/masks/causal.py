"""Causal masks: the first steps of a clip are visible, the later steps are targets.

step 0    step 1    step 2    step 3
. . .     . . .     # # #     # # #      # target
. . .     . . .     # # #     # # #      . context
"""

from typing import Literal

import torch
from pydantic import Field

from jepa.config import Component
from jepa.config.fields import Share
from jepa.masks.base import Mask, Partition, partition
from jepa.transformer import Grid


class Causal(Mask):
    """Shows a share of the steps in the range `context`, drawn once per batch, so that all clips have equal counts."""

    class Config(Component):
        """The later steps are predicted from the earlier ones."""

        kind: Literal["causal"] = "causal"
        context: tuple[Share, Share] = Field(default=(0.5, 0.5), description="range of the share of visible steps")

    def __init__(self, config: Config) -> None:
        self.context = config.context
        if not 0 < self.context[0] <= self.context[1] < 1:
            raise ValueError(f"context is a (min, max) share of the steps, between 0 and 1, found {self.context}")

    def __call__(self, grid: Grid, batch: int, generator: torch.Generator) -> Partition:
        steps, rows, columns = grid
        if steps < 2:
            raise ValueError(f"a causal mask needs at least 2 latent steps, found {steps}; give longer clips")
        low, high = self.context
        share = low + (high - low) * torch.rand((), generator=generator).item()
        seen = max(1, min(steps - 1, round(share * steps)))
        target = (torch.arange(steps) >= seen).repeat_interleave(rows * columns)
        return partition(target.expand(batch, -1))
