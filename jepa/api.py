"""What each verb does, as a function: `jepa.pretrain`, `jepa.probe`, `jepa.plan`, `jepa.dream`, `jepa.report`.

A config is an object (`PretrainConfig`, …), or the path of a YAML file with `KEY=VALUE` overrides, as at the command
line. `jepa` imports these functions when they are first used.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from lightning.pytorch.callbacks import Callback

from jepa.config import Config, UserError, from_dict
from jepa.config import load as load_config
from jepa.encoders import ENCODERS
from jepa.encoders.sizes import SIZES
from jepa.masks import MASKS
from jepa.methods import METHODS
from jepa.planners import PLANNERS
from jepa.predictors import PREDICTORS
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain as run_pretrain
from jepa.world_model import LatentWorldModel
from jepa_data.worlds import world_names
from jepa_probes.diagnosis.config import DiagnoseConfig, diagnose_config
from jepa_probes.diagnosis.diagnose import diagnose as run_diagnose
from jepa_probes.diagnosis.result import Diagnosis
from jepa_probes.imagination.config import DreamConfig
from jepa_probes.imagination.dream import dream as run_dream
from jepa_probes.imagination.result import DreamResult
from jepa_probes.planning.config import PlanConfig
from jepa_probes.planning.plan import plan as run_plan
from jepa_probes.planning.result import PlanResult
from jepa_probes.probing import PROBES
from jepa_probes.probing.config import ProbeConfig
from jepa_probes.probing.online import online_probe
from jepa_probes.probing.probe import probe as run_probe
from jepa_probes.probing.result import ProbeResult
from jepa_probes.reporting.report import report as run_report
from jepa_probes.reporting.results import RunResults

ConfigType = TypeVar("ConfigType", bound=Config)


def pretrain(
    config: PretrainConfig | Path | str,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: tuple[Callback, ...] = (),
) -> LatentWorldModel:
    """Train, and write the run folder that the config names (`jepa pretrain`).

    Args:
        config: or the path of a YAML file such as configs/pretrain/demo.yaml.
        overrides: "KEY=VALUE", such as "optimizer.lr=1e-3"; for a file.
        resume: go on from the last checkpoint of the folder.
        overwrite: start again in a folder that already holds a run; what that run left is deleted.
        callbacks: more of Lightning's.

    Returns:
        The trained model, as `jepa.load` gives it.

    Raises:
        UserError: the folder, the data and the config do not fit; a loss or a gradient is not finite.
    """
    resolved = _resolved(config, overrides, PretrainConfig)
    probe = online_probe(resolved)
    return run_pretrain(resolved, resume=resume, overwrite=overwrite, callbacks=callbacks, probe=probe)


def probe(
    run: Path | str,
    config: ProbeConfig | Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
) -> ProbeResult:
    """Score a model's encoder beside its baselines on held-out episodes (`jepa probe`).

    Args:
        run: folder of a run; or of a model alone, which also needs `shards`.
        out: folder for the result and the features; None: the run's.

    Returns:
        What probe.json holds: "scores" by probe and column, "prediction" by horizon, counts, and what was left out.

    Raises:
        UserError: there is no model, the data cannot be probed, or nothing can be written.
    """
    return run_probe(Path(run), _resolved(config, overrides, ProbeConfig), out=_path(out))


def plan(
    run: Path | str,
    config: PlanConfig | Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
) -> PlanResult:
    """Plan tasks in the world that a run was recorded in, with its model (`jepa plan`).

    Returns:
        What plan.json holds: "success" with its interval, the "baselines", the protocol, and how every task ended.

    Raises:
        UserError: the model has no dynamics, its data come from no simulated world, or nothing can be written.
    """
    return run_plan(Path(run), _resolved(config, overrides, PlanConfig), out=_path(out))


def diagnose(
    run: Path | str,
    config: DiagnoseConfig | Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
) -> Diagnosis:
    """What keeps the run's planner from solving more tasks (`jepa diagnose`).

    Args:
        config: or the path of a config of `jepa plan`, whose planner is diagnosed; None: RUN/plan.yaml, if it is there.

    Returns:
        What diagnosis.json holds: the planning ladder, the read-out, errors of imagination, and the `verdict` in words.

    Raises:
        UserError: the model has no dynamics, its data come from no simulated world, or nothing can be written.
    """
    if config is None or isinstance(config, (str, Path)):
        config = diagnose_config(Path(run), _path(config), overrides)
    elif overrides:
        raise UserError("overrides go with the path of a config; change an object with model_copy(update=…)")
    return run_diagnose(Path(run), config, out=_path(out))


def dream(
    run: Path | str,
    config: DreamConfig | Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
) -> DreamResult:
    """Train a controller in the model's imagination, and try it in the world (`jepa dream`).

    Returns:
        What dream.json holds: the return in imagination and in the world, with its interval and its baselines.

    Raises:
        UserError: the model has no dynamics, settings do not fit together, or nothing can be written.
    """
    return run_dream(Path(run), _resolved(config, overrides, DreamConfig), out=_path(out))


def report(run: Path | str, *, out: Path | str | None = None) -> RunResults:
    """Write one HTML page about a run (`jepa report`); the headline results of all its parts.

    Raises:
        UserError: the folder holds no model, or nothing can be written.
    """
    return run_report(Path(run), out=_path(out))


def list_methods() -> tuple[str, ...]:
    """The kinds that `method.kind` of a pretraining config takes."""
    return tuple(METHODS)


def list_encoders() -> tuple[str, ...]:
    """The kinds that `encoder.kind` of a pretraining config takes."""
    return tuple(ENCODERS)


def list_encoder_sizes() -> tuple[str, ...]:
    """The sizes of `encoder.size`; with "vit_" before it, what `jepa.create_encoder` takes."""
    return tuple(SIZES)


def list_masks() -> tuple[str, ...]:
    """The kinds that an item of `method.masks` of a pretraining config takes."""
    return tuple(MASKS)


def list_predictors() -> tuple[str, ...]:
    """The kinds that `method.predictor.kind` of a pretraining config takes."""
    return tuple(PREDICTORS)


def list_planners() -> tuple[str, ...]:
    """The kinds that `planner.kind` of a planning config takes."""
    return tuple(PLANNERS)


def list_probes() -> tuple[str, ...]:
    """The kinds that an item of `classifiers` of a probing config takes."""
    return tuple(PROBES)


def list_worlds() -> tuple[str, ...]:
    """The worlds that `jepa data record` and `make_env` know; any Gymnasium id as "gym:ID" as well."""
    return tuple(world_names())


def _resolved(config: ConfigType | Path | str | None, overrides: Sequence[str], kind: type[ConfigType]) -> ConfigType:
    if isinstance(config, (str, Path)):
        return load_config(Path(config), kind, overrides)
    if config is None:
        return from_dict({}, kind, overrides)
    if overrides:
        raise UserError("overrides go with the path of a config; change an object with model_copy(update=…)")
    return config


def _path(out: Path | str | None) -> Path | None:
    return None if out is None else Path(out).expanduser()
