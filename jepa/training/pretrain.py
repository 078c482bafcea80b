"""`jepa pretrain`: from a typed description to a trained model in a run folder.

RUN/config.yaml         the description with every default filled in
RUN/checkpoints/        of the training, to resume from
RUN/logs/               TensorBoard events and metrics.csv
RUN/model/              safetensors + JSON, what `jepa.load` reads; in model/predictor a masked predictor
RUN/pretrain.json       figures of the training
"""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException

from jepa.config import UserError, dump
from jepa.methods.base import Method
from jepa.models.checkpoint import DESCRIPTION
from jepa.models.config import ModelConfig
from jepa.models.model import load, save
from jepa.training.build_method import build_method, trained
from jepa.training.callbacks.collapse import CollapseMonitor
from jepa.training.callbacks.progress import ProgressLines, Throughput
from jepa.training.callbacks.scoring import ScoringCallback
from jepa.training.callbacks.stopping import STOPPED, Stopping
from jepa.training.clips import TrainingClips, order_seed
from jepa.training.config import PretrainConfig
from jepa.training.encoder_from import EncoderOrigin, resolved
from jepa.training.module import Pretraining
from jepa.training.normalization import fit_to_clips
from jepa.training.not_finite import NonFinitePolicy
from jepa.training.optim import NotFiniteError, check_state, optimization
from jepa.training.result import PretrainResult, StreamedData
from jepa.training.run_state.resume import Resumption, resumption, start_from
from jepa.training.run_state.run_folder import DESCRIPTION as RUN_CONFIG
from jepa.training.run_state.run_folder import check_free, claim
from jepa.training.sharding import whole_weights
from jepa.training.trainer import make_trainer, quiet
from jepa.transformer import compile_blocks
from jepa.world_model import LatentSpec, LatentWorldModel
from jepa_data.actions import ActionStats
from jepa_data.stream.clips import Bad
from jepa_data.stream.loader import ClipLoader
from jepa_data.writable import holding

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
        KeyboardInterrupt, SystemExit: a signal or `trainer.max_minutes` stopped it (exit codes 130 and 143); the state
            is saved.
        ValueError: the config asks for a probe, and none is given.
    """
    if config.trainer.probe_every and probe is None:
        raise ValueError("trainer.probe_every needs a probe: call jepa.pretrain, or give probe=online_probe(config)")
    config, origin = resolved(config)
    progress = RichProgressBar() if bar else ProgressLines()
    training = Training(config, origin, probe, (progress, *callbacks))
    start = resumption(config) if resume else None
    times = Counter[int]()
    while True:
        try:
            return training.run(start, overwrite=overwrite)
        except NotFiniteError as error:
            if config.trainer.not_finite != "roll_back" or not (Path(config.run) / RUN_CONFIG).is_file():
                raise
            start = resumption(config)
            times[start.step] += 1
            if times[start.step] > config.trainer.not_finite_limit:
                raise
            start = replace(start, rollbacks=start.rollbacks + times[start.step])
            logger.warning(f"{error}. Rolled back to step {start.step}; its data come in another order from there")


@dataclass(frozen=True)
class Training:
    """A training that can be begun several times: from the start, or from a checkpoint.

    Attributes:
        config: with the encoder written out.
        origin: what the encoder starts from.
        probe: scores the encoder now and then.
        callbacks: further ones.
    """

    config: PretrainConfig
    origin: EncoderOrigin
    probe: ScoringCallback | None
    callbacks: tuple[Callback, ...]

    def run(self, resumed: Resumption | None, *, overwrite: bool) -> LatentWorldModel:
        """Train to the end, from a checkpoint if the run is `resumed`, and write the model."""
        config = self.config
        assert config.encoder is not None, "resolved names it"
        run = Path(config.run)
        t = config.trainer
        monitor = CollapseMonitor(t.monitor_every, t.warn_rank_below if config.method.collapses else 0.0, config.views)
        watchers = Watchers(monitor, self.probe, Throughput())
        stopping = Stopping(t.max_minutes)
        # The monitors log, so they come before the callback that saves what was logged.
        watching = [*watchers.callbacks(), *self.callbacks, stopping]
        trainer = make_trainer(t, run, watching, may_skip_parameters=config.encoder.may_skip_parameters)
        if not trainer.is_global_zero:
            return self._train(trainer, stopping, watchers, resumed)
        with holding(run):  # of several processes, by the one that writes and speaks
            if resumed is None:
                check_free(run, overwrite=overwrite)
            return self._train(trainer, stopping, watchers, resumed)

    def _train(
        self, trainer: L.Trainer, stopping: Stopping, watchers: Watchers, resumed: Resumption | None
    ) -> LatentWorldModel:
        config = self.config
        run = Path(config.run)
        t = config.trainer
        start = resumed or Resumption()
        if start.step >= t.steps and (run / "model" / DESCRIPTION).is_file():
            logger.info(f"{run}: all {start.step} steps are done; raise trainer.steps to train longer")
            return load(run)
        clips = TrainingClips(config, self.origin, trainer, start.rollbacks)
        module = self._module(clips, start)
        actions = fit_to_clips(module.method, clips)
        if start.path:
            start.check(module.method)
        elif config.init_from:
            module.optimizer_state = start_from(config.init_from, module.method)
        _fit(config, trainer, module, clips, start, resume=resumed is not None)
        if stopping.reason and trainer.global_step < t.steps:
            _stop(run, stopping, trainer.global_step)
        if module.sharded:
            gathered = whole_weights(module.method)
            module.method = self._method(clips)
            module.method.load_state_dict(gathered)
        return _keep(config, trainer, module, clips, actions, watchers)

    def _method(self, clips: TrainingClips) -> Method:
        return build_method(self.config, clips.preprocessing.image_size, clips.loader.action_size, clips.events)

    def _module(self, clips: TrainingClips, start: Resumption) -> Pretraining:
        """What is trained. Raises UserError if stored latents are of another encoder."""
        config = self.config
        t = config.trainer
        pixels = clips.preprocessing
        module = Pretraining(
            self._method(clips),
            optimization(config),
            seed=order_seed(config.seed, start.rollbacks),
            total_steps=t.steps,
            mean=pixels.mean,
            std=pixels.std,
            augment=config.data.augment,
            state_columns=clips.state_columns,
            target_columns=clips.target_columns,
            policy=NonFinitePolicy(skip=t.not_finite == "skip", limit=t.not_finite_limit),
        )
        module.rollbacks = start.rollbacks
        clips.check_encoder(module.method.encoder)
        if t.compile and not compile_blocks(module.method):
            raise UserError(
                f"trainer.compile: method {config.method.kind} has no transformer blocks here; leave it out"
            )
        return module


def _fit(
    config: PretrainConfig,
    trainer: L.Trainer,
    module: Pretraining,
    clips: TrainingClips,
    start: Resumption,
    *,
    resume: bool,
) -> None:
    """Claim the folder and train; if not one step is taken, the folder is given back."""
    run = Path(config.run)
    claimed = None
    if trainer.is_global_zero:
        claimed = claim(run, dump(config), resume_step=start.step if resume else None)
        for note in (*clips.notes, *start.notes):
            logger.info(note)
    try:
        with quiet():
            trainer.fit(module, train_dataloaders=clips.loader, ckpt_path=start.path, weights_only=True)
    except BaseException as error:
        if claimed and trainer.global_step <= start.step:
            claimed.release()
        if isinstance(error, SIGTERMException):  # before the first step
            raise SystemExit(STOPPED) from error
        if isinstance(error, SystemExit):  # what Lightning makes of a KeyboardInterrupt
            logger.info(f"stopped; --resume goes on from {run}, if a checkpoint was written")
            raise KeyboardInterrupt from error
        raise


def _stop(run: Path, stopping: Stopping, step: int) -> NoReturn:
    """Leave a run that was asked to stop; its state is saved."""
    logger.info(f"stopped at step {step} by {stopping.reason}; the state is saved, --resume goes on from {run}")
    if stopping.interrupted:
        raise KeyboardInterrupt
    raise SystemExit(STOPPED)


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
        _figures(module, trainer, watchers, clips.loader, left_out).write(run)
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
        events=clips.events,
    )


def _figures(
    module: Pretraining, trainer: L.Trainer, watchers: Watchers, loader: ClipLoader, left_out: dict[str, Bad]
) -> PretrainResult:
    method = module.method
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
        skipped_steps=module.policy.skipped,
        rollbacks=module.rollbacks,
        left_out={key: bad.kind for key, bad in left_out.items()},
        data=StreamedData(
            position=loader.position,
            mix=dict(loader.stats.drawn),
            errors=dict(loader.stats.kinds),
            stalls=loader.stats.stalls,
        ),
    )
