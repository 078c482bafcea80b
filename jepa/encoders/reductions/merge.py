"""Merge neighboring places of the image whose tokens vary alike: the same places in every image.

    begin with each place as a set; its token is (z - mean) / deviation, over the training clips
    join the two touching sets of least |A| |B| |mean token of A - mean token of B|²,  until `tokens` sets are left
    a token of the reduction is the mean of the tokens of its set

Token Merging (ToMe, Bolya et al., arXiv 2210.09461) matches the tokens of each image by the cosine of their keys. That
serves a classifier, which reads a bag of tokens, and does not serve dynamics: token 3 of one frame is then another part
of the image than token 3 of the next, so a predictor, a linear probe and the distance of a cost would compare unlike
places. Here the sets are learned once, and stay. Every token keeps its place, the map is linear, and merging takes one
small matrix product. The price: sets do not follow what moves.

Tokens are compared by their correlation, as ToMe's by their cosine: constants, such as position codes, do not count,
and a place that seldom changes counts as much as one that often does. The product of the sizes keeps sets even. Ward's
|A| |B| / (|A| + |B|) does not: where a small body is in one place at a time, tokens of different places are
uncorrelated, all unions cost the same, and one set grows over most of the image (R² of the dot of Two Rooms, 64 tokens
to 16: 0.60, and 0.91 with correlations; with this criterion 0.98, as with blocks of 2x2).
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from jepa.config.fields import Count
from jepa.encoders.reductions.base import Averaging, Covariance, ReductionConfig, TokenLayout, averages

FLOOR = 1e-6  # of the largest variance; a place below it is taken for constant


class Merge(Averaging):
    """`tokens` means over learned sets of places, in the order of their first place. Before `finish`: equal runs.

    Tokens without rows and columns may be joined with any other.
    """

    class Config(ReductionConfig):
        """Means over sets of neighboring places that vary alike, learned from the data."""

        kind: Literal["merge"] = "merge"
        tokens: Count

    def __init__(self, config: Config, layout: TokenLayout) -> None:
        super().__init__()
        if config.tokens > layout.tokens:
            raise ValueError(
                f"{config.short}: expected at most the {layout.tokens} tokens that there are; choose fewer"
            )
        self.config = config
        self.layout = TokenLayout(config.tokens, layout.width, None)
        self._grid = layout.grid or (1, layout.tokens)
        self._touching = layout.grid is not None
        runs = torch.arange(layout.tokens) * config.tokens // layout.tokens
        self.register_buffer("average", averages(runs, config.tokens))
        self._sums = Covariance()

    def observe(self, z: Float[Tensor, "R N D"]) -> None:
        self._sums.add(z)

    def finish(self) -> None:
        covariance = self._sums.covariance().cpu().numpy()
        self._sums = Covariance()
        variance = covariance.diagonal()
        floor = max(FLOOR * variance.max(), np.finfo(np.float64).tiny)
        deviation = np.where(variance > floor, np.sqrt(variance.clip(floor)), np.inf)
        touching = neighbors(self._grid) if self._touching else np.ones(covariance.shape, dtype=bool)
        sets = joined(covariance / deviation / deviation[:, None], touching, self.config.tokens)
        self.average.copy_(averages(torch.from_numpy(sets), self.config.tokens))


def neighbors(grid: tuple[int, int]) -> Bool[np.ndarray, "N N"]:
    """Which places of a grid, row by row, share an edge."""
    row, column = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    return np.abs(row[:, None] - row) + np.abs(column[:, None] - column) == 1


def joined(products: Float[np.ndarray, "N N"], touching: Bool[np.ndarray, "N N"], count: int) -> Int[np.ndarray, " N"]:
    """Agglomerative clustering by |A| |B| times the squared distance of the means of A and B.

    Args:
        products: inner products of the points.
        touching: which of them may be joined; sets touch if any of their points do.

    Returns:
        The set of each point, 0 … count-1, numbered in the order of their first points.
    """
    points = len(products)
    inner = products.astype(np.float64)  # of the means of the sets; a set is at the index of its first point
    touching = touching & ~np.eye(points, dtype=bool)
    set_of = np.arange(points)
    size = np.ones(points)
    for _ in range(points - count):
        own = inner.diagonal()
        cost = size * size[:, None] * (own + own[:, None] - 2 * inner)
        a, b = sorted(divmod(int(np.where(touching, cost, np.inf).argmin()), points))
        share = size[b] / (size[a] + size[b])
        inner[a] = (1 - share) * inner[a] + share * inner[b]
        inner[:, a] = (1 - share) * inner[:, a] + share * inner[:, b]
        size[a] += size[b]
        touching[a] |= touching[b]
        touching[:, a] = touching[a]
        touching[a, a] = False
        touching[b] = touching[:, b] = False
        set_of[set_of == b] = a
    return np.unique(set_of, return_inverse=True)[1].astype(np.int64)
