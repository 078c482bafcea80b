"""The base class of masks."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from jepa.ranks import rank_part
from jepa.transformer import Grid

Partition = tuple[Int[Tensor, "B Mc"], Int[Tensor, "B Mt"]]  # context and target


class Mask(ABC):
    """Draws context and target token indices that partition the grid; built from its `Config`."""

    @abstractmethod
    def __call__(self, grid: Grid, batch: int, generator: torch.Generator) -> Partition:
        """Context and target token indices, ascending, over a grid of (steps, rows, columns).

        Both counts are the same for every clip of the batch. Raises ValueError if the grid is too small.
        """

    def of(self, video: Tensor, grid: Grid, generator: torch.Generator, views: int = 1) -> Partition:
        """Indices for a batch of video, on its device, drawn together with those of other ranks.

        Args:
            views: parts of `video`, one after the other, each with all clips.
        """
        visible = 0

        def draw(clips: int) -> Tensor:
            nonlocal visible
            context, target = self(grid, views * clips, generator)
            visible = context.shape[1]
            return torch.cat((context, target), 1).unflatten(0, (views, clips))

        both = rank_part(draw, len(video) // views, dim=1, device=video.device).flatten(0, 1)
        return both[:, :visible], both[:, visible:]


def partition(target: Bool[Tensor, "B L"]) -> Partition:
    """Context and target token indices, ascending, of a boolean mask; every row has the same number of targets."""
    return _where(~target), _where(target)


def _where(mask: Bool[Tensor, "B L"]) -> Int[Tensor, "B M"]:
    return mask.nonzero()[:, 1].view(len(mask), int(mask[0].sum()))
