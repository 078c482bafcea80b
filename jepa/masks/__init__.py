"""Masks: draw context and target indices on a token grid."""

from typing import Annotated

from pydantic import Field

from jepa.config import Component, Parts, part

MASKS = Parts(
    "masks",
    "jepa.masks.base:Mask",
    multiblock="jepa.masks.multiblock:MultiBlock",
    tube="jepa.masks.tube:Tube",
    causal="jepa.masks.causal:Causal",
    random_drop="jepa.masks.random_drop:RandomDrop",
)

# In a config; blocks where `kind` is left out, as masks were blocks before there were others.
Masks = Annotated[tuple[Annotated[Component, part(MASKS, "multiblock")], ...], Field(min_length=1)]
# Short-range and long-range blocks of V-JEPA 1 and 2.
VJEPA_MASKS = Field(default=({"blocks": 8, "scale": 0.15}, {"blocks": 2, "scale": 0.7}), validate_default=True)
