"""What a term of the cost of plans is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from jepa.planners.cost import Imagined, Term
from jepa_data.worlds.base import WorldBatch
from jepa_probes.planning.tasks import Tasks


@dataclass(frozen=True)
class Region:
    """A ball of the world's true state: `names` are its axes."""

    names: tuple[str, ...]
    center: tuple[float, ...]
    radius: float

    def contains(self, world: WorldBatch) -> NDArray[np.bool_]:
        """Which episodes are in it now [B]."""
        columns = [list(world.state_names).index(name) for name in self.names]
        return np.linalg.norm(world.states()[:, columns] - self.center, axis=-1) < self.radius


class CostTerm(ABC):
    """Made from its `Config`, and over a model, its data and a seed: `Class(config, model, data, seed)`.

    What has to be fitted or encoded is so when the term is made, once for all plans.

    Attributes:
        r2: R² of the states that it reads off latents; None of one that does not vary. Empty where it reads none.
        regions: that are forbidden.
    """

    r2: Mapping[str, float | None] = MappingProxyType({})
    regions: tuple[Region, ...] = ()

    def for_tasks(self, tasks: Tasks) -> None:
        """Told of the tasks before any plan is made. By default nothing depends on them.

        Raises:
            UserError: the term does not fit the tasks.
        """
        return None

    @abstractmethod
    def __call__(self, imagined: Imagined) -> Float[Tensor, "B K"]:
        """Not yet weighted; see `Term`."""


@dataclass(frozen=True)
class Costs:
    """What plans cost beside the distance to their goal.

    Attributes:
        terms: with their weights.
        regions: that are forbidden; it is watched who enters them, of the tasks that neither begin nor end there.
        described: the terms' configs, JSON-able.
    """

    terms: tuple[Term, ...] = ()
    regions: tuple[Region, ...] = ()
    configs: list[dict[str, Any]] = field(default_factory=list)
