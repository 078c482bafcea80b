"""What a config says of masks. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from jepa.config import Config
from jepa.config.fields import Count, Positive, Share, kind_or


class MultiBlockConfig(Config):
    """jepa/masks/multiblock.py: how many blocks, and the share of the picture each covers."""

    kind: Literal["multiblock"] = "multiblock"
    blocks: Count
    scale: Share
    aspect: tuple[Positive, Positive] = (0.75, 1.5)


class TubeConfig(Config):
    """jepa/masks/tube.py: the same random cells are hidden at every step."""

    kind: Literal["tube"] = "tube"
    ratio: Share = 0.9


class CausalConfig(Config):
    """jepa/masks/causal.py: the later steps are predicted from the earlier ones."""

    kind: Literal["causal"] = "causal"
    context: tuple[Share, Share] = Field(default=(0.5, 0.5), description="range of the share of steps that are seen")


class RandomDropConfig(Config):
    """jepa/masks/random_drop.py: tokens hidden at random."""

    kind: Literal["random_drop"] = "random_drop"
    ratio: Share = 0.9


MaskConfig = Annotated[
    Annotated[MultiBlockConfig, Tag("multiblock")]
    | Annotated[TubeConfig, Tag("tube")]
    | Annotated[CausalConfig, Tag("causal")]
    | Annotated[RandomDropConfig, Tag("random_drop")],
    kind_or("multiblock"),  # masks were blocks before there were others
]
Masks = Annotated[tuple[MaskConfig, ...], Field(min_length=1)]
VJEPA_MASKS = (MultiBlockConfig(blocks=8, scale=0.15), MultiBlockConfig(blocks=2, scale=0.7))
