"""The commands as functions: `jepa.pretrain`, `jepa.probe`, `jepa.plan`, `jepa.compare`, `jepa.report`, ….

A config is an object (`PretrainConfig`, …), or the path of a YAML file with `KEY=VALUE` overrides, as on the command
line. `jepa` imports these functions on first use.
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
from jepa_probes.comparison.compare import compare as run_compare
from jepa_probes.comparison.config import CompareConfig
from jepa_probes.comparison.result import Comparison
from jepa_probes.compression.compress import compress as run_compress
from jepa_probes.compression.config import CompressConfig
from jepa_probes.compression.result import CompressionResult
from jepa_probes.decoding.config import FitConfig
from jepa_probes.decoding.decoder import decoder as run_decoder
from jepa_probes.decoding.result import DecoderResult
from jepa_probes.diagnosis.config import DiagnoseConfig, diagnose_config
from jepa_probes.diagnosis.diagnose import diagnose as run_diagnose
from jepa_probes.diagnosis.result import Diagnosis
from jepa_probes.imagination.config import DreamConfig
from jepa_probes.imagination.dream import dream as run_dream
from jepa_probes.imagination.result import DreamResult
from jepa_probes.imagining.config import ImagineConfig
from jepa_probes.imagining.imagine import Imagined
from jepa_probes.imagining.imagine import imagine as run_imagine
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
    """Train a model and write its run folder (`jepa pretrain`).

    Args:
        config: a config, or the path of a YAML file such as configs/pretrain/demo.yaml.
        overrides: "KEY=VALUE", such as "optimizer.lr=1e-3"; only with a path.
        resume: continue from the last checkpoint of the run.
        overwrite: delete an existing run and start again.
        callbacks: additional Lightning callbacks.

    Returns:
        The trained model, as `jepa.load` returns it.

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
    """Score a model's encoder and its baselines on held-out episodes (`jepa probe`).

    Args:
        run: a run folder, or a model folder, which also needs `shards`.
        out: output folder; None: the run folder.

    Returns:
        The contents of probe.json: "scores" by probe and column, "prediction" by horizon, counts, and skipped samples.

    Raises:
        UserError: there is no model, the data cannot be probed, or nothing can be written.
    """
    return run_probe(Path(run), _resolved(config, overrides, ProbeConfig), out=_path(out))


def compress(
    run: Path | str,
    out: Path | str,
    config: CompressConfig | Path | str | None = None,
    overrides: Sequence[str] = (),
) -> CompressionResult:
    """Reduce the tokens of a frozen encoder, and probe what is left (`jepa compress`).

    Args:
        run: a run folder, or a model folder or hub id, which also need `shards`.
        out: new or empty folder for the models and the report.
        overrides: "KEY=VALUE", such as "keep=[pool:2x2, pca:32]".

    Returns:
        The contents of compression.json: sizes of the latents, and "scores" by probe and reduction.

    Raises:
        UserError: there is no model, a reduction does not fit its tokens, or `out` is not empty.
    """
    out = Path(out).expanduser()
    return run_compress(run, out, _resolved(config, overrides, CompressConfig))


def fit_decoder(
    run: Path | str,
    config: FitConfig | Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
) -> DecoderResult:
    """Fit a decoder on the frozen latents of a run, and measure it on held-out clips (`jepa decoder`).

    Returns:
        The contents of decoder.json: PSNR, SSIM, where objects are in decoded frames, and decoding time.

    Raises:
        UserError: there is no model, its latents cannot be decoded, or nothing can be written.
    """
    return run_decoder(Path(run), _resolved(config, overrides, FitConfig), out=_path(out))


def imagine(
    run: Path | str,
    config: ImagineConfig | Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
) -> Imagined:
    """Imagine futures with the model of a run (`jepa imagine`).

    Args:
        out: the video, .mp4 or .gif; its errors are written beside it as JSON. None: nothing is written.

    Returns:
        `latents` [K, H, N, D] and `frames` uint8 [K, H, 3, h, w] of K futures of H latent steps, the `true` frames
        [H, 3, h, w] where they are known, and the `result` with errors of each step.

    Raises:
        UserError: the model has no dynamics, what to start from or the actions do not fit it, or several futures are
            asked of dynamics that predict a single one.
    """
    return run_imagine(Path(run), _resolved(config, overrides, ImagineConfig), out=_path(out))


def plan(
    run: Path | str,
    config: PlanConfig | Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
) -> PlanResult:
    """Plan tasks with the model of a run, in the world it was trained on (`jepa plan`).

    Returns:
        The contents of plan.json: "success" with its interval, the "baselines", the protocol, and the result of every
        task.

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
    """Find the component that limits the planner of a run (`jepa diagnose`).

    Args:
        config: a config, or the path of a config of `jepa plan`, whose planner is diagnosed; None: RUN/plan.yaml, if it
            exists.

    Returns:
        The contents of diagnosis.json: success rates with each component replaced, probe scores, errors of imagined
        rollouts, and the `verdict` as text.

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
    """Train a controller in imagined rollouts of the model, and evaluate it in the world (`jepa dream`).

    Returns:
        The contents of dream.json: the return in imagination and in the world, with its interval and its baselines.

    Raises:
        UserError: the model has no dynamics, settings do not fit together, or nothing can be written.
    """
    return run_dream(Path(run), _resolved(config, overrides, DreamConfig), out=_path(out))


def compare(
    config: CompareConfig | Path | str, overrides: Sequence[str] = (), *, overwrite: bool = False
) -> Comparison:
    """Train or take several models on the same data, with the same budget, and measure all alike (`jepa compare`).

    Args:
        overwrite: delete cells that were trained with other settings; without it they are an error.

    Returns:
        The contents of compare.json: a cell for each model and seed, those that failed, and what the baselines lose.

    Raises:
        UserError: parts do not fit together, or no cell finished.
    """
    return run_compare(_resolved(config, overrides, CompareConfig), overwrite=overwrite)


def report(run: Path | str, *, out: Path | str | None = None) -> RunResults:
    """Write an HTML report about a run (`jepa report`), and return its main results.

    Raises:
        UserError: the folder holds no model, or nothing can be written.
    """
    return run_report(Path(run), out=_path(out))


def list_methods() -> tuple[str, ...]:
    """Valid values of `method.kind` in a pretraining config."""
    return tuple(METHODS)


def list_encoders() -> tuple[str, ...]:
    """Valid values of `encoder.kind` in a pretraining config."""
    return tuple(ENCODERS)


def list_encoder_sizes() -> tuple[str, ...]:
    """Valid values of `encoder.size`; "vit_SIZE" is a name for `jepa.create_encoder`."""
    return tuple(SIZES)


def list_masks() -> tuple[str, ...]:
    """Valid values of `kind` in `method.masks` of a pretraining config."""
    return tuple(MASKS)


def list_predictors() -> tuple[str, ...]:
    """Valid values of `method.predictor.kind` in a pretraining config."""
    return tuple(PREDICTORS)


def list_planners() -> tuple[str, ...]:
    """Valid values of `planner.kind` in a planning config."""
    return tuple(PLANNERS)


def list_probes() -> tuple[str, ...]:
    """Valid values of `kind` in `classifiers` of a probing config."""
    return tuple(PROBES)


def list_worlds() -> tuple[str, ...]:
    """Worlds for `jepa data record` and `make_env`; "gym:ID" is any Gymnasium environment."""
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
