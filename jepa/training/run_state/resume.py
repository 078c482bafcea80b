"""Runs that go on from a checkpoint: the same run (`jepa pretrain --resume`), or a new one (`init_from`).

`--resume`: what may differ from the run that is gone on with, and from where it goes on.
May differ: how long, on what, where the shards lie, and how often to log and save. What is learned from what, and how,
may not: the state of the optimizer, the place in the data and the schedule are those of the run as it was started.
Their manifests show whether the shards are the same, when training begins (`ClipLoader.load_state_dict`). Whoever
wants another learning rate or other data starts another run from these weights (`init_from`).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from jepa.config import UserError, expand_home, load
from jepa.events import check_same_events
from jepa.methods.base import Method
from jepa.models.checkpoint import check_tensors
from jepa.training.config import PretrainConfig
from jepa.training.optim import schedule_of
from jepa.training.run_state.checkpoint_file import read_checkpoint
from jepa.training.run_state.checkpoints import (
    EVENTS,
    FOLDER,
    LAST,
    ROLLBACKS,
    changing,
    check_same,
    checkpoint_steps,
    newest_whole,
    weights_of,
)
from jepa_data.printable import first_few

logger = logging.getLogger(__name__)
STEPS = "trainer.steps"  # may grow
MAY_CHANGE = (
    "run",
    "trainer.device",
    "trainer.devices",
    "trainer.nodes",
    "trainer.strategy",
    "trainer.precision",
    "trainer.compile",
    "trainer.log_every",
    "trainer.monitor_every",
    "trainer.probe_every",
    "trainer.probe",
    "trainer.checkpoint_every",
    "trainer.keep_last",
    "trainer.max_minutes",
    "trainer.not_finite",
    "trainer.not_finite_limit",
    "trainer.warn_rank_below",
    "data.skip",
    "data.workers",
    "data.worker_kind",
    "data.cache_mib",
    "data.max_bad_fraction",
    "data.decode_seconds",
    "data.stall_seconds",
    "data.quarantine",
    "data.remote",
    "encoder.checkpoint_every",
    "encoder.of.checkpoint_every",
)
SHOWN = 5  # differences in an error


@dataclass(frozen=True)
class Resumption:
    """From where a run goes on; without anything, a run that begins.

    Attributes:
        path: of the checkpoint.
        step: optimizer steps done.
        rollbacks: times that the run went on with its data in another order.
        notes: what changes, a line each.
        weights: of the checkpoint, by name.
    """

    path: Path | None = None
    step: int = 0
    rollbacks: int = 0
    notes: tuple[str, ...] = ()
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def check(self, method: Method) -> None:
        """Raises UserError if these are weights of another method."""
        check_tensors(changing(method), weights_of(self.weights), str(self.path))


def resumption(config: PretrainConfig) -> Resumption:
    """The newest whole checkpoint of a run; a run that was ended before its first one begins again.

    Raises:
        UserError: there is no run, none of its checkpoints is whole, or the config differs in what may not change.
    """
    run = Path(config.run)
    config_file = run / "config.yaml"
    if not config_file.is_file():
        raise UserError(f"{run}: nothing to resume: {config_file} is not there. Start the run without --resume")
    before = load(config_file, PretrainConfig)
    check_changes(before, config)
    folder = run / FOLDER
    if not (folder / LAST).is_file() and not checkpoint_steps(folder):
        begins = f"{run}: there is no checkpoint yet; the run begins at its first step"
        return Resumption(notes=(begins, *_changes(before, config)))
    path, checkpoint, why = newest_whole(folder)
    step = int(checkpoint["global_step"])
    notes = [*([why] if why else []), *_changes(before, config), *_schedule_change(before, config, step)]
    rollbacks = checkpoint.get(ROLLBACKS, 0)
    return Resumption(path, step, rollbacks, tuple(notes), checkpoint["state_dict"])


def start_from(source: str, method: Method) -> dict[int, Any]:
    """Fill `method` with the weights of a run, and return the state of its optimizer, by parameter number.

    So V-JEPA 2's cooldown starts, at more frames or pixels, from its first phase. All weights of the method (encoder,
    predictor, teacher) and the moments of the optimizer are taken over; an encoder that is frozen has to be the same in
    both. Schedules, data and the number of steps are the new run's own.

    Args:
        source: a run folder, or one of its checkpoints (.ckpt).

    Raises:
        UserError: there is no checkpoint, it is damaged, or a tensor is missing, surplus or of another shape.
    """
    path = Path(source)
    if not path.is_file() and not checkpoint_steps(path / FOLDER) and not (path / FOLDER / LAST).is_file():
        raise UserError(
            f"init_from: {path / FOLDER / LAST} does not exist; give a run folder with checkpoints, or a .ckpt file"
        )
    try:
        if path.is_file():
            checkpoint = read_checkpoint(path)
        else:
            path, checkpoint, why = newest_whole(path / FOLDER)
            if why:
                logger.warning(f"init_from: {why}")
    except UserError as error:
        raise UserError(f"init_from: {error}") from None
    weights = weights_of(checkpoint["state_dict"])
    check_same(checkpoint, method, f"init_from: {path}")
    if method.dynamics is not None and method.dynamics.events is not None:
        names = method.dynamics.events.names
        check_same_events(checkpoint.get(EVENTS, ()), names, f"init_from: {path}", "data.shards")
    check_tensors(changing(method), weights, f"init_from: {path}")
    method.load_state_dict(method.state_dict() | weights)
    return checkpoint["optimizer_states"][0]["state"]


def check_changes(before: PretrainConfig, now: PretrainConfig) -> None:
    """Raises UserError naming every key that may not change when a run is resumed."""
    was = _compared(before)
    wanted = _compared(now)
    refused = [
        f"{key} is {_value(wanted.get(key))}, was {_value(was.get(key))}"
        for key in dict.fromkeys([*was, *wanted])
        if was.get(key) != wanted.get(key) and not _may_change(key) and key != STEPS
    ]
    if now.trainer.steps < before.trainer.steps:
        refused.append(f"{STEPS} is {now.trainer.steps}, was {before.trainer.steps}, and can only grow")
    if refused:
        raise UserError(
            f"{now.run}: cannot be resumed with other settings: {first_few(refused, SHOWN, '; ')}. Give those of "
            f"{Path(now.run) / 'config.yaml'}, or start another run from these weights: init_from={now.run} run=FOLDER"
        )


def _changes(before: PretrainConfig, now: PretrainConfig) -> list[str]:
    """What is other than it was, of what may be, in one line."""
    was, wanted = (_flat(expand_home(config.model_dump())) for config in (before, now))
    changed = [
        f"{key} {_value(was.get(key))} -> {_value(wanted.get(key))}"
        for key in dict.fromkeys([*was, *wanted])
        if was.get(key) != wanted.get(key) and key not in (STEPS, "run")
    ]
    return [f"changed: {', '.join(changed)}"] if changed else []


def _schedule_change(before: PretrainConfig, now: PretrainConfig, step: int) -> list[str]:
    """What happens to the schedule where the run gets longer."""
    new = now.trainer.steps
    if before.trainer.steps == new:
        return []
    rates = [config.optimizer.lr * schedule_of(config)(step) for config in (before, now)]
    return [
        f"{STEPS} {before.trainer.steps} -> {new}: the {now.schedule.kind} schedule, and all else that follows the "
        f"length of the run, is that of {new} steps from now on; at step {step} the learning rate goes from "
        f"{rates[0]:.3g} to {rates[1]:.3g}"
    ]


def _compared(config: PretrainConfig) -> dict[str, Any]:
    """The settings, without where shards and the lists of what is left out of them lie."""
    values = config.model_dump()
    values["data"]["shards"] = [{"weight": source.weight} for source in config.data.sources]
    return _flat(values)


def _may_change(key: str) -> bool:
    return any(key == allowed or key.startswith(f"{allowed}.") for allowed in MAY_CHANGE)


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[above + key] = value
    return flat


def _value(value: Any) -> str:
    return "none" if value is None else str(value)
