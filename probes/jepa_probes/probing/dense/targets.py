"""Masks, depth and keypoints of clips as targets of a linear probe: at the last frame of each latent step.

    mask        share of each class in each cell of a grid     [B, S, cells * classes]
    depth       mean distance in each cell                     [B, S, cells]
    keypoints   x, y in pixels of the clip                     [B, S, 2 K]; NaN where a point is missing or not visible

Cells are numbered row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from jepa.config import UserError
from jepa_data.spatial.kinds import SpatialInfo
from jepa_data.types import ClipBatch


@dataclass(frozen=True)
class DenseTargets:
    """Makes targets of batches.

    Attributes:
        infos: of the kinds that are probed.
        grid: cells on a side.
    """

    infos: tuple[SpatialInfo, ...]
    grid: int

    @classmethod
    def of(cls, infos: Sequence[SpatialInfo], grid: int) -> "DenseTargets":
        """Raises UserError for a mask whose classes have no names, so that nobody knows how many there are."""
        if any(info.kind == "mask" and not info.names for info in infos):
            raise UserError(
                "spatial: expected a mask whose classes have names, found none in the shards' manifest; give them to "
                "jepa_data.annotate as names={'mask': […]}"
            )
        return cls(tuple(infos), grid)

    def __call__(self, batch: ClipBatch, frames_per_step: int) -> dict[str, Float[Tensor, "B S _"]]:
        """By kind."""
        last = torch.arange(frames_per_step - 1, batch.video.shape[1], frames_per_step)
        return {info.kind: self._target(info, batch.spatial[info.kind][:, last].cpu()) for info in self.infos}

    def _target(self, info: SpatialInfo, x: Shaped[Tensor, "B S ..."]) -> Float[Tensor, "B S _"]:
        if info.kind == "keypoints":
            missing = x[..., 2:] == 0
            points = torch.where(missing.any(-1, keepdim=True), torch.nan, x[..., :2].float())
            return points.flatten(2)
        if info.kind == "depth":
            known = x.isfinite()
            total = self._cells(torch.where(known, x, 0.0))
            return (total / self._cells(known.float())).flatten(2)  # NaN where nothing of a cell is known
        classes = torch.arange(len(info.names))[:, None, None]
        return torch.stack([self._cells((one[:, None] == classes).float()) for one in x]).movedim(2, -1).flatten(2)

    def _cells(self, x: Float[Tensor, "*rows h w"]) -> Float[Tensor, "*rows cells"]:
        return F.adaptive_avg_pool2d(x.flatten(0, -3)[:, None], self.grid).reshape(*x.shape[:-2], -1)
