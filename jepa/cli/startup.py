"""Imports without garbage collection, which would go through a million objects again and again: a fifth of a start."""

import gc
import sys
from typing import Literal

IMPORTED_OBJECTS = 1_000_000  # about as many as all of torch, Lightning and torchmetrics make


def postpone_collection() -> None:
    """Collect no garbage before so many objects were made; then leave out those that are there, and go on as usual."""
    usual = gc.get_threshold()
    if usual[0] >= IMPORTED_OBJECTS or "torch" in sys.modules:  # it was asked before, or there is little left to import
        return

    def started(phase: Literal["start", "stop"], _: dict[str, int]) -> None:
        if phase == "stop":
            gc.callbacks.remove(started)
            gc.set_threshold(*usual)
            gc.freeze()

    gc.callbacks.append(started)
    gc.set_threshold(IMPORTED_OBJECTS)
