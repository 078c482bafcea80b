"""`jepa plan`: tasks in the world that a run was recorded in.

RUN/plan.json            success with its interval, floor, ceiling, protocol
RUN/plan_examples.npz    pictures and imagined latents of the first tasks, for the report
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jepa.agents.policy import PlanSettings
from jepa.config import UserError
from jepa.config import load as load_config
from jepa.runs.build import build_planner
from jepa.runs.model import load
from jepa.runs.schema import PlanConfig, PretrainConfig
from jepa_data.shards.index import ShardSet
from jepa_data.worlds import make_batch, world_names
from jepa_probes.planning import Protocol, evaluate

EXAMPLES = 4


def plan(run: Path, config: PlanConfig, *, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Plan the tasks with the run's model and write the result.

    Raises:
        UserError: the run has no model with dynamics, or its data come from no simulated world.
    """
    model = load(run)
    if model.dynamics is None:
        raise UserError(
            f"{run}: its method has no dynamics, so it cannot plan. Pretrain one with `method: {{kind: lewm}}`"
        )
    manifest = ShardSet.open(load_config(run / "config.yaml", PretrainConfig).data.folder).manifest
    if manifest.world not in world_names():
        raise UserError(f"{run}: trained on video that was not recorded in one of {', '.join(world_names())}")
    size = model.preprocessing.image_size
    version = make_batch(manifest.world, np.arange(1), image_size=size).version
    protocol = Protocol(
        manifest.world, version, size, config.tasks, config.steps, config.radius, config.least_distance, config.seed
    )
    try:
        planner = build_planner(config.planner)
        settings = PlanSettings(config.horizon, config.execute, config.hold, config.path_weight, planner)
        result, tasks, episodes, imagined = evaluate(model, protocol, settings)
    except ValueError as error:
        raise UserError(f"{run}: {error}") from error
    (run / "plan.json").write_text(json.dumps(result, indent=2) + "\n")
    shown = _chosen(episodes.distance < protocol.radius)
    np.savez_compressed(
        run / "plan_examples.npz",
        real=episodes.pictures[:, shown].swapaxes(0, 1),
        goal=tasks.goal_pictures[shown],
        imagined=imagined[shown].numpy(),
        success=(episodes.distance < protocol.radius)[shown],
    )
    say(
        f"success {result['success']:.2f} (95 % interval {result['low']:.2f} to {result['high']:.2f}) "
        f"on {config.tasks} tasks; random actions {result['floor']:.2f}, "
        f"planning on the true simulator {result['ceiling']:.2f}"
    )
    return result


def _chosen(success: np.ndarray) -> np.ndarray:
    """The first tasks, with at least one failure among them where there is one: a report shall not show only luck."""
    first = np.arange(min(EXAMPLES, len(success)))
    failures = np.flatnonzero(~success)
    if success[first].all() and failures.size:
        first[-1] = failures[0]
    return first
