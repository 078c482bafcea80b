"""Uniform random token drop: keep a fixed share of the tokens of a clip, drawn uniformly."""

from typing import Literal

import torch

from jepa.config import Component
from jepa.config.fields import Share
from jepa.masks.base import Mask, Partition, partition
from jepa.transformer import Grid


class RandomDrop(Mask):
    """Drops `ratio` of the tokens, but never all of them. LeVJEPA drops 0.95."""

    class Config(Component):
        """Tokens hidden uniformly at random."""

        kind: Literal["random_drop"] = "random_drop"
        ratio: Share = 0.9

    def __init__(self, config: Config) -> None:
        self.ratio = config.ratio
        if not 0 <= self.ratio < 1:
            raise ValueError(f"the ratio of dropped tokens is at least 0 and below 1, found {self.ratio}")

    def __call__(self, grid: Grid, batch: int, generator: torch.Generator) -> Partition:
        steps, rows, columns = grid
        tokens = steps * rows * columns
        kept = max(1, round(tokens * (1 - self.ratio)))
        scores = torch.rand(batch, tokens, generator=generator)
        rarer = min(kept, tokens - kept)  # picking few is faster than sorting all
        picked = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(rarer, sorted=False).indices, True)
        return partition(~picked if rarer == kept else picked)
