"""What a term of the cost of plans is, and terms from the `costs:` of a config.

Terms on states of the world are decoded from the latents; their R² is reported with them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from jepa.config import UserError
from jepa.planners.cost import Imagined, Term
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_data.shards.index import ShardSet
from jepa_data.worlds.base import WorldBatch
from jepa_probes.planning.costs import TERMS, TermConfig


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


class CostTerm:
    """Made from its `Config`, and over a model, its data and a seed: `Class(config, model, data, seed)`.

    What has to be fitted or encoded is so when the term is made, once for all plans.

    Attributes:
        cost: not yet weighted; see `Term`.
        r2: R² of the states that it reads off latents; None of one that does not vary. Empty where it reads none.
        regions: that are forbidden.
    """

    Config: type[TermConfig] = TermConfig
    cost: Callable[[Imagined], Float[Tensor, "B K"]]
    r2: Mapping[str, float | None] = MappingProxyType({})
    regions: tuple[Region, ...] = ()


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


def build_costs(costs: Sequence[TermConfig], model: LatentWorldModel, data: StreamConfig, seed: int) -> Costs:
    """Fit what is read off latents, and encode what is an image, once for all plans.

    Raises:
        UserError: a state was not recorded, which is found before anything is fitted, or does not exist in all
            episodes; or an image cannot be read or is not square.
    """
    recorded = ShardSet.open(data.folder).manifest.state_names
    for number, cost in enumerate(costs):
        if unknown := [name for name in cost.states if name not in recorded]:
            known = ", ".join(recorded) or "none"
            raise UserError(f"costs.{number}: no state {unknown[0]!r} was recorded; there are: {known}")
    terms: list[Term] = []
    regions: list[Region] = []
    configs: list[dict[str, Any]] = []
    for number, cost in enumerate(costs):
        try:
            term: CostTerm = TERMS.make(cost, model, data, seed)
        except ValueError as error:
            raise UserError(f"costs.{number}: {error}") from error
        terms.append(Term(term.cost, cost.weight))
        regions += term.regions
        configs.append(cost.model_dump(mode="json") | ({"r2": dict(term.r2)} if term.r2 else {}))
    return Costs(tuple(terms), tuple(regions), configs)
