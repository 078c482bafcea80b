"""The base class of masks."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from jepa.transformer import Grid

Partition = tuple[Int[Tensor, "B Mc"], Int[Tensor, "B Mt"]]  # context and target


class Mask(ABC):
    """Draws context and target token indices that partition the grid; built from its `Config`."""

    @abstractmethod
    def __call__(self, grid: Grid, batch: int, generator: torch.Generator) -> Partition:
        """Context and target token indices, ascending, over a grid of (steps, rows, columns).

        Both counts are the same for every clip of the batch. Raises ValueError if the grid is too small.
        """

    def of(self, video: Tensor, grid: Grid, generator: torch.Generator) -> Partition:
        """Indices for a batch of video, on its device."""
        context, target = self(grid, len(video), generator)
        return context.to(video.device), target.to(video.device)


def partition(target: Bool[Tensor, "B L"]) -> Partition:
    """Context and target token indices, ascending, of a boolean mask; every row has the same number of targets."""
    return _where(~target), _where(target)


def _where(mask: Bool[Tensor, "B L"]) -> Int[Tensor, "B M"]:
    return mask.nonzero()[:, 1].view(len(mask), int(mask[0].sum()))
