"""Tube masks: the same random cells of the image are hidden at every step (VideoMAE, arXiv 2203.12602).

step 0    step 1    step 2
# . #     # . #     # . #      # target
. # #     . # #     . # #      . context
# . .     # . .     # . .
"""

from typing import Literal

import torch

from jepa.config import Component
from jepa.config.fields import Share
from jepa.masks.base import Mask, Partition, partition
from jepa.transformer import Grid


class Tube(Mask):
    """Hides `ratio` of the cells, drawn uniformly, for the whole clip; VideoMAE hides 0.9."""

    class Config(Component):
        """The same random cells are hidden at every step."""

        kind: Literal["tube"] = "tube"
        ratio: Share = 0.9

    def __init__(self, config: Config) -> None:
        self.ratio = config.ratio
        if not 0 < self.ratio < 1:
            raise ValueError(f"the ratio of hidden cells is between 0 and 1, found {self.ratio}")

    def __call__(self, grid: Grid, batch: int, generator: torch.Generator) -> Partition:
        steps, rows, columns = grid
        cells = rows * columns
        if cells < 2:
            raise ValueError(f"a tube mask needs at least 2 cells, found a grid of {rows} x {columns}")
        hidden = max(1, min(cells - 1, round(self.ratio * cells)))
        chosen = torch.rand(batch, cells, generator=generator).topk(hidden, sorted=False).indices
        target = torch.zeros(batch, cells, dtype=torch.bool).scatter_(1, chosen, True)
        return partition(target[:, None].expand(-1, steps, -1).flatten(1))
