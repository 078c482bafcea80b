"""An agent and its tasks, from a run and a config: what `jepa plan` lets play."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from jepa.agents.controller import Controller
from jepa.agents.policy import PlanSettings
from jepa.config import UserError, errors_of
from jepa.models.model import load
from jepa.training.config import PretrainConfig
from jepa.training.run_state.run_folder import run_config
from jepa.world_model import LatentWorldModel
from jepa_data.shards.index import ShardSet
from jepa_probes.imagination.dream import load_controller
from jepa_probes.output import output_folder
from jepa_probes.planning.config import PlanConfig
from jepa_probes.planning.costs.base import Costs, build_costs
from jepa_probes.planning.recordings import Segments, action_space, inverse_dynamics, recorded_segments
from jepa_probes.planning.resolve import fitted, protocol_of
from jepa_probes.planning.settings import plan_settings
from jepa_probes.planning.tasks import Tasks


@dataclass(frozen=True)
class Agent:
    """A model that plans tasks.

    Attributes:
        config: with all that was left to the world.
        settings: how it plans, without `costs`.
        inverse: fits inverse dynamics when it is first called; None where the config wants none.
        guide: what plans start from, see `Policy`.
        segments: recordings that plans also start from; None where the config wants none.
        out: folder for what is written.
    """

    model: LatentWorldModel
    training: PretrainConfig
    config: PlanConfig
    tasks: Tasks
    settings: PlanSettings
    costs: Costs
    inverse: Callable[[], Controller] | None
    guide: Controller | None
    segments: Segments | None
    out: Path


def prepare(run: Path, config: PlanConfig, out: Path | None = None) -> Agent:
    """The agent that `config` describes, with the run's model.

    Args:
        out: folder for what is written; None: the run's.

    Raises:
        UserError: the run has no model with dynamics, its data come from no simulated world, or from another than the
            config names; settings do not fit together; or nothing can be written.
    """
    settings = plan_settings(config)
    model = load(run)
    if model.dynamics is None:
        raise UserError(
            f"{run}: its method has no dynamics, so it cannot plan. Pretrain one with `method: {{kind: lewm}}`"
        )
    training = run_config(run)
    data = training.data
    out = output_folder(run, out)
    config = fitted(run, config, ShardSet.open(data.folder).manifest, model)
    protocol = protocol_of(config)
    with errors_of(run):
        tasks = Tasks(protocol)
        costs = build_costs(config.costs, model, data, tasks)
        space = action_space(model, protocol.world)
        inverse = config.inverse and cache(partial(inverse_dynamics, model, data, config.inverse, space, config.seed))
        guide = {"inverse_dynamics": inverse, "controller": partial(load_controller, run, out)}.get(config.warm_start)
        names = tasks.start(1).goal_names
        segments = config.proposals and recorded_segments(model, data, config.proposals, names, config.seed)
        return Agent(model, training, config, tasks, settings, costs, inverse, guide and guide(), segments, out)
