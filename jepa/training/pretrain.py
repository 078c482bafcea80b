"""`jepa pretrain`: from a typed description to a trained model in a run folder.

RUN/config.yaml         the description with every default filled in
RUN/checkpoints/        of the training, to resume from
RUN/logs/               TensorBoard events and metrics.csv
RUN/model/              safetensors + JSON, what `jepa.load` reads; in model/predictor a masked predictor
RUN/pretrain.json       figures of the training
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar

from jepa.config import dump
from jepa.methods.base import Method
from jepa.models.checkpoint import DESCRIPTION
from jepa.models.config import ModelConfig
from jepa.models.model import load, save
from jepa.training.build_method import build_method, trained
from jepa.training.callbacks.collapse import CollapseMonitor
from jepa.training.callbacks.progress import ProgressLines, Throughput
from jepa.training.callbacks.scoring import ScoringCallback
from jepa.training.checkpoints import tensors_sha256
from jepa.training.clips import TrainingClips
from jepa.training.config import PretrainConfig
from jepa.training.encoder_from import resolved
from jepa.training.module import Pretraining
from jepa.training.normalization import fit_to_clips
from jepa.training.optim import check_state, optimization
from jepa.training.result import PretrainResult, StreamedData
from jepa.training.resume import Resumption, resumption, start_from
from jepa.training.run_folder import check_free, claim
from jepa.training.trainer import make_trainer, quiet
from jepa.world_model import LatentSpec, LatentWorldModel
from jepa_data.actions import ActionStats
from jepa_data.stream.clips import Bad
from jepa_data.stream.loader import ClipLoader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watchers:
    """What watches a training, and is asked for its figures in the end."""

    monitor: CollapseMonitor
    probe: ScoringCallback | None
    speed: Throughput

    def callbacks(self) -> list[Callback]:
        return [each for each in (self.monitor, self.probe, self.speed) if each is not None]


def pretrain(
    config: PretrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    bar: bool = False,
    callbacks: tuple[Callback, ...] = (),
    probe: ScoringCallback | None = None,
) -> LatentWorldModel:
    """Train, and write the run folder.

    Args:
        resume: go on from the last checkpoint of the folder.
        overwrite: start again in a folder that already holds a run; what that run left is deleted.
        bar: draw a progress bar instead of printing lines.
        callbacks: more of Lightning's, for users in Python.
        probe: scores the encoder every `trainer.probe_every` steps (`jepa_probes.probing.online.online_probe`).

    Raises:
        UserError: the folder, the data and the config do not fit; a loss or a gradient is not finite.
        ValueError: the config asks for a probe, and none is given.
    """
    if config.trainer.probe_every and probe is None:
        raise ValueError("trainer.probe_every needs a probe: call jepa.pretrain, or give probe=online_probe(config)")
    run = Path(config.run)
    config, origin = resolved(config)
    assert config.encoder is not None, "resolved names it"
    t = config.trainer
    monitor = CollapseMonitor(t.monitor_every, t.warn_rank_below if config.method.collapses else 0.0, config.views)
    watchers = Watchers(monitor, probe, Throughput())
    progress = RichProgressBar() if bar else ProgressLines()
    # The monitors log, so they come before the callback that saves what was logged.
    watching = [*watchers.callbacks(), progress, *callbacks]
    trainer = make_trainer(config.trainer, run, watching, may_skip_parameters=config.encoder.may_skip_parameters)
    start = resumption(config) if resume else Resumption()
    if trainer.is_global_zero and not resume:  # of several processes, the one that writes and speaks
        check_free(run, overwrite=overwrite)
    if start.step >= config.trainer.steps and (run / "model" / DESCRIPTION).is_file():
        logger.info(f"{run}: all {start.step} steps are done; raise trainer.steps to train longer")
        return load(run)
    clips = TrainingClips(config, origin, trainer)
    module = _module(config, clips)
    actions = fit_to_clips(module.method, clips)
    if resume:
        start.check(module.method)
    elif config.init_from:
        module.optimizer_state = start_from(config.init_from, module.method)
    _fit(config, trainer, module, clips, start)
    return _keep(config, trainer, module, clips, actions, watchers)


def _module(config: PretrainConfig, clips: TrainingClips) -> Pretraining:
    """What is trained. Raises UserError if stored latents are of another encoder."""
    module = Pretraining(
        build_method(config, clips.preprocessing.image_size, clips.loader.action_size),
        optimization(config),
        seed=config.seed,
        total_steps=config.trainer.steps,
        mean=clips.preprocessing.mean,
        std=clips.preprocessing.std,
        augment=config.data.augment,
        state_columns=clips.state_columns,
        target_columns=clips.target_columns,
    )
    if "encoder" in module.method.frozen:
        clips.check_encoder(tensors_sha256(module.method.encoder))
    return module


def _fit(
    config: PretrainConfig, trainer: L.Trainer, module: Pretraining, clips: TrainingClips, start: Resumption
) -> None:
    """Claim the folder and train; if not one step is taken, the folder is given back."""
    run = Path(config.run)
    claimed = None
    if trainer.is_global_zero:
        claimed = claim(run, dump(config), resume=start.path is not None)
        for note in (*clips.notes, *start.notes):
            logger.info(note)
    try:
        with quiet():
            trainer.fit(module, train_dataloaders=clips.loader, ckpt_path=start.path, weights_only=True)
    except BaseException as error:
        if claimed and trainer.global_step <= start.step:
            claimed.release()
        if isinstance(error, SystemExit):  # what Lightning makes of Ctrl-C
            logger.info(f"stopped; --resume goes on from {run}, if a checkpoint was written")
            raise KeyboardInterrupt from error
        raise
    finally:
        if claimed:
            claimed.prepend_metrics()


def _keep(
    config: PretrainConfig,
    trainer: L.Trainer,
    module: Pretraining,
    clips: TrainingClips,
    actions: ActionStats | None,
    watchers: Watchers,
) -> LatentWorldModel:
    """The model, and the figures of its training; both are written."""
    run = Path(config.run)
    method = module.method
    check_state(method.state_dict(), (), str(run / "model"))
    assert config.encoder is not None
    model_config = ModelConfig(
        method=config.method.kind,
        frames=config.data.clip_frames,
        encoder=config.encoder,
        dynamics=None if method.dynamics is None else method.dynamics.config,
        spec=_spec(method, clips, actions),
        preprocessing=clips.preprocessing,
    )
    model = trained(method, model_config)
    left_out = clips.left_out()
    if trainer.is_global_zero:
        for bad in left_out.values():
            logger.info(f"left out: {bad.key} in {bad.shard}: {bad.kind}")
        save(model, run / "model")
        _figures(method, trainer, watchers, clips.loader, left_out).write(run)
        logger.info(f"{run / 'model'}: what `jepa.load` reads. Next: jepa probe {run}")
    return model.world


def _spec(method: Method, clips: TrainingClips, actions: ActionStats | None) -> LatentSpec:
    encoder = method.evaluation_encoder()
    return LatentSpec(
        encoder.tokens,
        encoder.width,
        encoder.tubelet / clips.preprocessing.fps,
        encoder.tubelet,
        clips.loader.action_size or None,
        history=method.history,
        states=clips.wanted,
        actions=actions,
    )


def _figures(
    method: Method, trainer: L.Trainer, watchers: Watchers, loader: ClipLoader, left_out: dict[str, Bad]
) -> PretrainResult:
    monitors: dict[str, Any] = watchers.monitor.values
    speed = watchers.speed
    probe = watchers.probe
    return PretrainResult(
        method=method.config.kind,
        steps=trainer.global_step,
        clips_per_second=round(speed.clips / speed.seconds, 2) if speed.seconds else None,
        wait_share=round(loader.stats.wait_share, 4),
        **monitors,
        monitor_seconds=round(watchers.monitor.seconds, 2),
        probe=None if probe is None else probe.scores | {"seconds": round(probe.seconds, 2)},
        seconds=round(speed.seconds, 2),
        parameters=sum(p.numel() for p in method.parameters() if p.requires_grad),
        encoder_parameters=sum(p.numel() for p in method.evaluation_encoder().parameters()),
        device=str(trainer.strategy.root_device),
        precision=str(trainer.precision),
        warnings=watchers.monitor.warnings,
        left_out={key: bad.kind for key, bad in left_out.items()},
        data=StreamedData(
            position=loader.position,
            mix=dict(loader.stats.drawn),
            errors=dict(loader.stats.kinds),
            stalls=loader.stats.stalls,
        ),
    )
