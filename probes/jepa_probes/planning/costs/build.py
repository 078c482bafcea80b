"""From the `costs:` of a config to terms of a cost, for planners.

Terms on states of the world are decoded from the latents; their R² is reported with them.
"""

from collections.abc import Sequence
from typing import Any

from jepa.config import UserError
from jepa.planners.cost import Term
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_data.shards.index import ShardSet
from jepa_probes.planning.costs import TERMS, TermConfig
from jepa_probes.planning.costs.base import Costs, CostTerm, Region
from jepa_probes.planning.tasks import Tasks


def build_costs(costs: Sequence[TermConfig], model: LatentWorldModel, data: StreamConfig, tasks: Tasks) -> Costs:
    """Fit what is read off latents, and encode what is an image, once for all plans of the tasks.

    Raises:
        UserError: a term does not fit the tasks; a state was not recorded, which is found before anything is fitted, or
            does not exist in all episodes; or an image cannot be read or is not square.
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
            term: CostTerm = TERMS.make(cost, model, data, tasks.protocol.seed)
            term.for_tasks(tasks)
        except ValueError as error:
            raise UserError(f"costs.{number}: {error}") from error
        terms.append(Term(term, cost.weight))
        regions += term.regions
        configs.append(cost.model_dump(mode="json") | ({"r2": dict(term.r2)} if term.r2 else {}))
    return Costs(tuple(terms), tuple(regions), configs)
