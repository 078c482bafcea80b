"""From the config of `jepa plan` to the settings of a policy."""

from typing import Any

from jepa.agents.policy import PlanSettings
from jepa.config import Component, errors_of
from jepa.planners import PLANNERS
from jepa.planners.base import Planner
from jepa.planners.cost import Term
from jepa.planners.gradient import Gradient
from jepa.planners.hybrid import Hybrid
from jepa_probes.planning.config import PlanConfig

SIZES = ("samples", "elites", "starts")  # plans side by side, and those that are kept of them
ROUNDS = ("iterations", "steps")
REFINEMENT = Gradient.Config(steps=20, lr=0.05, starts=1)


def plan_settings(config: PlanConfig, terms: tuple[Term, ...] = ()) -> PlanSettings:
    """How plans are made; `terms` are the costs of the config, once they are built.

    Raises:
        UserError: the settings of the planner do not fit together.
    """
    return PlanSettings(
        config.horizon,
        config.replan_every,
        config.action_repeat,
        config.bounds,
        config.running_cost_weight,
        make_planner(config.planner),
        terms,
        keep=config.warm_start == "previous",
        history=config.history,
        random_action_if_stuck=config.random_action_if_stuck,
        budget=config.steps if config.know_budget else None,
        proposals=config.proposals.count if config.proposals else 0,
        futures=config.futures,
        outlook=config.outlook,
    )


def make_planner(config: Component) -> Planner:
    """Raises UserError if its settings do not fit together."""
    with errors_of("planner"):
        return PLANNERS.make(config)


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
