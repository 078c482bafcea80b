"""Average pooling over blocks of the token grid.

a a b b
a a b b      4x4 tokens ──→ pool:2x2 ──→ 2x2 tokens, each the mean of a block of 2x2
c c d d
c c d d
"""

from typing import Literal

import torch

from jepa.config.fields import Count
from jepa.encoders.reductions.base import Averaging, ReductionConfig, TokenLayout, averages


class Pool(Averaging):
    """Tokens [rows, columns] of the grid that is left; 1x1 is one token, the mean of all. Nothing is fitted."""

    from_data = False

    class Config(ReductionConfig):
        """Means over blocks of the token grid."""

        kind: Literal["pool"] = "pool"
        rows: Count
        columns: Count

    def __init__(self, config: Config, layout: TokenLayout) -> None:
        super().__init__()
        self.config = config
        kept = (config.rows, config.columns)
        grid = layout.grid or ((1, layout.tokens) if kept == (1, 1) else None)
        if grid is None:
            raise ValueError(
                f"{config.short}: expected tokens in rows and columns, found {layout.tokens} without places in the "
                "image; put pool first, or use merge or pca"
            )
        if grid[0] % kept[0] or grid[1] % kept[1]:
            raise ValueError(
                f"{config.short}: expected rows and columns that divide the grid of {grid[0]}x{grid[1]} tokens evenly, "
                f"found {kept[0]}x{kept[1]}; choose divisors"
            )
        self.layout = TokenLayout(kept[0] * kept[1], layout.width, kept)
        row = torch.arange(grid[0]) * kept[0] // grid[0]
        column = torch.arange(grid[1]) * kept[1] // grid[1]
        block = (row[:, None] * kept[1] + column).flatten()
        self.register_buffer("average", averages(block, self.layout.tokens), persistent=False)
