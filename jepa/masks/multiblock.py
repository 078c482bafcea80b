"""Multi-block masks: predict a few large spatial blocks, over the whole clip, from the rest (V-JEPA, 2404.08471).

    short-range: 8 blocks of 15 % of the frame      long-range: 2 blocks of 70 %
        . # # # . . # #                                 . # # # # # # .
        . # # # . . # #      # target                   . # # # # # # .
        . . # # # # . .      . context                  # # # # # # # .
        # # # # # # . .                                 # # # # # # # .

The reference drops tokens to give all clips of a batch the same counts. Here the blocks of each clip are scaled
together until they cover exactly the average count of these settings. So context and target partition the clip, all
steps have the same mask, and shapes are constant in training.
"""

from functools import lru_cache, partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.config import Component
from jepa.config.fields import Count, Positive, Share
from jepa.masks.base import Mask, Partition, partition
from jepa.transformer import Grid


class MultiBlock(Mask):
    """Draws masks of `blocks` rectangles, each `scale` of the frame, of aspect (height / width) within `aspect`."""

    class Config(Component):
        """Number of blocks, and the share of the image that each covers."""

        kind: Literal["multiblock"] = "multiblock"
        blocks: Count
        scale: Share
        aspect: tuple[Positive, Positive] = (0.75, 1.5)  # V-JEPA 1 and 2

    def __init__(self, config: Config) -> None:
        self.blocks, self.scale = config.blocks, config.scale
        self.aspect = config.aspect
        if not 0 < self.scale < 1:
            raise ValueError(f"a mask needs 0 < scale < 1, found {self.scale}")
        if self.aspect[0] > self.aspect[1]:
            raise ValueError(f"aspect is (min, max) height / width, found {self.aspect}")

    def __call__(self, grid: Grid, batch: int, generator: torch.Generator) -> Partition:
        steps, rows, columns = grid
        distance = self._distance(rows, columns, batch, generator)
        cells = target_cells(self, rows, columns)
        nearest = distance.flatten(1).argsort(dim=1, stable=True)[:, :cells]
        target = torch.zeros(batch, rows * columns, dtype=torch.bool).scatter_(1, nearest, True)
        return partition(target[:, None].expand(-1, steps, -1).flatten(1))

    def _distance(
        self, rows: int, columns: int, batch: int, generator: torch.Generator
    ) -> Float[Tensor, "B rows columns"]:
        """Distance of each cell to the center of its nearest block, in half block sizes; below 1 inside a block."""
        uniform = partial(torch.rand, batch, self.blocks, generator=generator)
        low, high = self.aspect
        aspect = low + (high - low) * uniform()
        height = (self.scale * rows * columns * aspect).sqrt().round().clamp(1, rows)
        width = (self.scale * rows * columns / aspect).sqrt().round().clamp(1, columns)
        top = (uniform() * (rows - height + 1)).floor()
        left = (uniform() * (columns - width + 1)).floor()
        y, x = torch.arange(rows), torch.arange(columns)
        down = (y - (top + (height - 1) / 2)[..., None]).abs() / (height / 2)[..., None]
        across = (x - (left + (width - 1) / 2)[..., None]).abs() / (width / 2)[..., None]
        distance = torch.maximum(down[..., :, None], across[..., None, :])
        # A slight slope, another for every block, decides which end of an edge is cut when the edge does not fit whole.
        slope = torch.stack((uniform(), uniform()))[..., None, None] - 0.5
        return (distance + 1e-3 * (slope[0] * y[:, None] / rows + slope[1] * x / columns)).amin(1)


@lru_cache
def target_cells(mask: MultiBlock, rows: int, columns: int, draws: int = 1024) -> int:
    """Average number of cells that the blocks of `mask` cover, from 1 to all but one."""
    distance = mask._distance(rows, columns, draws, torch.Generator().manual_seed(0))
    covered = (distance < 1).float().flatten(1).sum(1).mean()
    return max(1, min(rows * columns - 1, round(covered.item())))
