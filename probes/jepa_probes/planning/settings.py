"""From the config of `jepa plan` to the settings of a policy."""

from jepa.agents.policy import PlanSettings
from jepa.config import Component, UserError
from jepa.planners import PLANNERS
from jepa.planners.base import Planner
from jepa.planners.cost import Term
from jepa_probes.planning.config import PlanConfig


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
    )


def make_planner(config: Component) -> Planner:
    """Raises UserError if its settings do not fit together."""
    try:
        return PLANNERS.make(config)
    except ValueError as error:
        raise UserError(f"planner: {error}") from error
