"""From the description of tasks to their protocol, where what a config leaves open is the world's own; and their scores
as lines."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import numpy as np

from jepa.agents.observations import check_actions
from jepa.config import UserError
from jepa.world_model import LatentWorldModel
from jepa_data.shards.manifest import Manifest
from jepa_data.worlds import make_batch, make_goal_batch, world_names
from jepa_probes.planning.config import TasksConfig
from jepa_probes.planning.result import Success
from jepa_probes.planning.tasks import Play, Protocol

AnyTasks = TypeVar("AnyTasks", bound=TasksConfig)


def recorded_in(run: Path, config: AnyTasks, recording: Manifest, model: LatentWorldModel) -> AnyTasks:
    """The config with the name and version of the world that the run's data come from, and the size of its images.

    Raises:
        UserError: they come from no simulated world, or from another than the config names, or the model's actions are
            not those of the world.
    """
    if recording.world is None:
        raise UserError(f"{run}: trained on video that was not recorded in one of {', '.join(world_names())}")
    about = make_batch(recording.world, np.arange(1))
    recorded = {"world": recording.world, "world_version": about.version}
    for key, value in recorded.items():
        if getattr(config, key) not in (None, value):
            raise UserError(f"{key} is {getattr(config, key)!r} in the config, and {value!r} where {run} was recorded")
    check_actions(model, about)
    size = config.image_size or recording.image_size or model.preprocessing.image_size
    return config.model_copy(update={**recorded, "image_size": size})


def fitted(run: Path, config: AnyTasks, recording: Manifest, model: LatentWorldModel) -> AnyTasks:
    """The config with all that it leaves to the world. Raises UserError as `recorded_in`, or if that sets no goals."""
    config = recorded_in(run, config, recording, model)
    about = make_goal_batch(str(config.world), np.arange(1))
    radius = config.radius or about.radius
    policy = config.goal_offset and (config.goal_policy or about.policies[0])
    chosen = {"radius": radius, "min_distance": config.min_distance or radius, "goal_policy": policy}
    return config.model_copy(update=chosen)


def play_of(config: TasksConfig) -> Play:
    """What is played in a world without goals, of a config that `recorded_in` has seen."""
    assert config.world and config.world_version and config.image_size
    return Play(config.world, config.world_version, config.image_size, config.tasks, config.steps, config.seed)


def score_table(rows: Sequence[tuple[str, Success]]) -> list[str]:
    """Lines that tell of agents by name the share of tasks they solved, its interval, and their number."""
    width = max(len(label) for label, _ in rows)
    lines = [f"{'':{width}}  solved   95 % interval   tasks"]
    for label, score in rows:
        interval = f"{100 * score.low:5.1f} … {100 * score.high:5.1f} %"
        lines.append(f"{label:{width}}  {100 * score.success:5.1f} %  {interval}  {score.tasks:5d}")
    return lines


def protocol_of(config: TasksConfig) -> Protocol:
    """The protocol of a config that `fitted` has seen."""
    assert config.world and config.world_version and config.image_size and config.radius and config.min_distance
    return Protocol(**config.model_dump(include={field.name for field in fields(Protocol)}))
