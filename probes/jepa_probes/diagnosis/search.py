"""Better search: the same planner with so many times as many plans, or refined by gradient."""

from typing import Any

from jepa.config import Component
from jepa.planners.base import Planner
from jepa.planners.gradient import Gradient
from jepa.planners.hybrid import Hybrid

SIZES = ("samples", "elites", "starts")  # plans side by side, and those that are kept of them
ROUNDS = ("iterations", "steps")
REFINEMENT = Gradient.Config(steps=20, lr=0.05, starts=1)


def enlarged(config: Component, times: int) -> Component:
    """Its settings, with `times` as many plans imagined: the root of it in each direction, where it has two."""
    sizes = [name for name in SIZES if hasattr(config, name)]
    rounds = [name for name in ROUNDS if hasattr(config, name)]
    factor = times if not (sizes and rounds) else times**0.5
    changes: dict[str, Any] = {name: round(factor * getattr(config, name)) for name in (*sizes, *rounds)}
    parts = {name: getattr(config, name) for name in type(config).model_fields}
    changes |= {name: enlarged(part, times) for name, part in parts.items() if isinstance(part, Component)}
    return config.model_copy(update=changes)


def refined(config: Component, planner: Planner) -> Planner | None:
    """A planner of this config, and then 20 steps along the gradient; None if it follows gradients itself."""
    if planner.gradient_free() is not planner:
        return None
    return Hybrid(Hybrid.Config(sampler=config, refine=REFINEMENT))
