"""`jepa pretrain`: from a typed description to a trained model in a run folder.

RUN/config.yaml         the description with every default filled in
RUN/checkpoints/        of the training, to resume from
RUN/logs/               TensorBoard events and metrics.csv
RUN/model/              safetensors + JSON, what `jepa.load` reads; in model/predictor a masked predictor
RUN/pretrain.json       figures of the training
"""

import csv
import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback, RichProgressBar

from jepa.config import UserError, dump
from jepa.methods import METHODS
from jepa.methods.base import Method
from jepa.models.checkpoint import DESCRIPTION
from jepa.models.model import load, save
from jepa.training import optim
from jepa.training.build_method import build_method, trained
from jepa.training.callbacks.collapse import CollapseMonitor
from jepa.training.callbacks.progress import ProgressLines, Throughput
from jepa.training.callbacks.scoring import ScoringCallback
from jepa.training.config import PretrainConfig
from jepa.training.encoder_from import Source, random_weights, resolved
from jepa.training.module import Pretraining
from jepa.training.normalization import state_columns, training_normalization
from jepa.training.optim import check_state
from jepa.training.result import PretrainResult, StreamedData
from jepa.training.resume import Resumption, resumption, start_from
from jepa.training.run_folder import Claim, check_free, claim
from jepa.training.trainer import make_trainer, optimizer_of, quiet, schedule_of
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing
from jepa_data.actions import ActionStats
from jepa_data.config import AugmentConfig
from jepa_data.stream.action_stats import action_stats
from jepa_data.stream.clips import Bad
from jepa_data.stream.loader import ClipLoader, make_loader
from jepa_data.transforms import IMAGENET_MEAN, IMAGENET_STD

logger = logging.getLogger(__name__)


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
    config, source = resolved(config)
    monitor, speed = _monitor(config), Throughput()
    progress = RichProgressBar() if bar else ProgressLines()
    # The monitors log, so they come before the callback that saves what was logged.
    trainer = make_trainer(config, [monitor, *([probe] if probe else []), speed, progress, *callbacks])
    writes = trainer.is_global_zero  # of several processes, the one that writes and speaks
    resumed = resumption(config) if resume else None
    if resumed is None and writes:
        check_free(run, overwrite=overwrite)
    if resumed and resumed.step >= config.trainer.steps and (run / "model" / DESCRIPTION).is_file():
        logger.info(f"{run}: all {resumed.step} steps are done; raise trainer.steps to train longer")
        return load(run)
    loader = _loader(config, trainer)
    for note in _remarks(config, loader) if writes else ():
        logger.info(note)
    preprocessing = _preprocessing(config, loader, source)
    module, stats = _module(config, loader, preprocessing, resumed)
    claimed = claim(run, dump(config), resume=resume) if writes else None
    for note in resumed.notes if resumed and writes else ():
        logger.info(note)
    _fit(trainer, module, loader, resumed, claimed)
    check_state(module.method.state_dict(), (), str(run / "model"))
    spec = _spec(config, module.method, preprocessing, loader, stats)
    model = trained(config, module.method, spec, preprocessing)
    left_out = _left_out(loader)
    if writes:
        for bad in left_out.values():
            logger.info(f"left out: {bad.key} in {bad.shard}: {bad.kind}")
        save(model, run / "model")
        _write_result(run, config, module.method, trainer, monitor, probe, speed, loader, left_out)
        logger.info(f"{run / 'model'}: what `jepa.load` reads. Next: jepa probe {run}")
    return model.world


def _loader(config: PretrainConfig, trainer: L.Trainer) -> ClipLoader:
    """Clips for all steps of the run."""
    loader = make_loader(
        config.data,
        "train",
        seed=config.seed,
        total_batches=config.trainer.steps * config.trainer.accumulate,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )
    if loader.action_size and config.data.augment.flip:
        raise UserError("data.augment.flip mirrors the pictures and not the actions; use it for video without actions")
    return loader


def _remarks(config: PretrainConfig, loader: ClipLoader) -> list[str]:
    """What a user should know of the data and the encoder before the training."""
    if not random_weights(config):
        return list(loader.notes)
    advice = "name trained ones: method.encoder_from, or encoder.pretrained"
    return [*loader.notes, f"the encoder is frozen with random weights; {advice}"]


def _fit(
    trainer: L.Trainer,
    module: Pretraining,
    loader: ClipLoader,
    resumed: Resumption | None,
    claimed: Claim | None,
) -> None:
    """Train; if not one step is taken, the folder is given back."""
    earlier = _read_metrics(claimed.run) if claimed and resumed else []
    first = resumed.step if resumed else 0
    try:
        with quiet():
            trainer.fit(module, train_dataloaders=loader, ckpt_path=resumed and resumed.path, weights_only=True)
    except BaseException as error:
        if claimed and trainer.global_step <= first:
            claimed.release()
        if isinstance(error, SystemExit):  # what Lightning makes of Ctrl-C
            run = Path(trainer.default_root_dir).parent
            logger.info(f"stopped; --resume goes on from {run}, if a checkpoint was written")
            raise KeyboardInterrupt from error
        raise
    finally:
        if claimed:
            _write_metrics(claimed.run, earlier)


def _monitor(config: PretrainConfig) -> CollapseMonitor:
    """An encoder that is frozen does not collapse, so there is nothing to warn of."""
    least = config.trainer.warn_rank_below if config.method.collapses else 0.0
    return CollapseMonitor(config.trainer.monitor_every, least, _views(config))


def _views(config: PretrainConfig) -> AugmentConfig | None:
    """How this run makes other views of a clip; None if it does not."""
    augment, crop = config.data.augment, config.data.augment.crop or config.data.crop
    augment = augment.model_copy(update={"crop": config.method.view_crop() or crop})
    return None if augment == AugmentConfig() else augment


def _left_out(loader: ClipLoader) -> dict[str, Bad]:
    """What could not be read, by any process."""
    if not (dist.is_available() and dist.is_initialized()):
        return loader.bad
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, loader.bad)
    return {key: bad for part in gathered for key, bad in part.items()}


def _module(
    config: PretrainConfig, loader: ClipLoader, preprocessing: Preprocessing, resumed: Resumption | None
) -> tuple[Pretraining, ActionStats | None]:
    """The method, and all that training it takes; and the statistics of its actions, where it needs any."""
    columns = state_columns(config, loader)
    stats = action_stats(loader) if loader.action_size and METHODS[config.method.kind].needs_actions else None
    scales = training_normalization(config, loader, stats)
    method = build_method(config, preprocessing.image_size, loader.action_size, scales)
    if resumed:
        resumed.check(method)
    optimizer_state = start_from(config.init_from, method) if config.init_from and not resumed else None
    first, last = config.optimizer.weight_decay, config.optimizer.final_weight_decay
    module = Pretraining(
        method,
        seed=config.seed,
        total_steps=config.trainer.steps,
        make_optimizer=optimizer_of(config),
        lr_factor=schedule_of(config),
        mean=preprocessing.mean,
        std=preprocessing.std,
        augment=config.data.augment,
        state_columns=columns,
        weight_decay=None if last is None else optim.half_cosine(first, last, config.trainer.steps),
        optimizer_state=optimizer_state,
    )
    return module, stats


def _preprocessing(config: PretrainConfig, loader: ClipLoader, source: Source | None) -> Preprocessing:
    manifest = loader.shards.manifest
    size, fps = config.data.image_size or manifest.image_size, config.data.fps or manifest.fps
    if size is None or fps is None:
        what = "data.image_size" if size is None else "data.fps"
        raise UserError(f"{loader.shards.url}: its videos differ in this; say what the model gets: {what}=NUMBER")
    _check_square(config, loader)
    data = config.data
    return Preprocessing(
        size,
        fps / data.stride,
        *((IMAGENET_MEAN, IMAGENET_STD) if source is None else (source.mean, source.std)),
        fit=data.fit,
        shortest_edge=data.shortest_edge,
        clip_frames=data.clip_frames,
    )


def _check_square(config: PretrainConfig, loader: ClipLoader) -> None:
    """Clips as stored must be square, as everything is that a model is shown later."""
    if config.data.image_size is not None or not len(loader.corpora[0]):
        return
    index = loader.corpora[0][0].video_index()
    if index is not None and index.height != index.width:
        raise UserError(
            f"{loader.shards.url}: its videos are {index.width}x{index.height}, and models see square pictures; give "
            "data.image_size=NUMBER (the middle part is taken; data.fit=stretch takes all of it)"
        )


def _spec(
    config: PretrainConfig,
    method: Method,
    preprocessing: Preprocessing,
    loader: ClipLoader,
    stats: ActionStats | None,
) -> LatentSpec:
    encoder = method.evaluation_encoder()
    assert config.encoder is not None and isinstance(encoder.tokens, int) and isinstance(encoder.width, int)
    tubelet = config.encoder.tubelet
    return LatentSpec(
        encoder.tokens,
        encoder.width,
        tubelet / preprocessing.fps,
        tubelet,
        loader.action_size or None,
        history=method.history,
        states=config.method.state_names(),
        actions=stats,
    )


def _read_metrics(run: Path) -> list[dict[str, str]]:
    path = run / "logs" / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write_metrics(run: Path, earlier: list[dict[str, str]]) -> None:
    """Put the rows of the part before a resume in front: Lightning's logger starts its file from scratch."""
    later = _read_metrics(run)
    if not earlier or not later:
        return
    first = int(later[0]["step"])
    rows = [row for row in earlier if int(row["step"]) < first] + later
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (run / "logs" / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _write_result(
    run: Path,
    config: PretrainConfig,
    method: Method,
    trainer: L.Trainer,
    monitor: CollapseMonitor,
    probe: ScoringCallback | None,
    speed: Throughput,
    loader: ClipLoader,
    left_out: dict[str, Bad],
) -> None:
    monitors: dict[str, Any] = dict(monitor.values)
    result = PretrainResult(
        method=config.method.kind,
        steps=trainer.global_step,
        clips_per_second=round(speed.clips / speed.seconds, 2) if speed.seconds else None,
        wait_share=round(loader.stats.wait_share, 4),
        **monitors,
        monitor_seconds=round(monitor.seconds, 2),
        probe=None if probe is None else probe.scores | {"seconds": round(probe.seconds, 2)},
        seconds=round(speed.seconds, 2),
        parameters=sum(p.numel() for p in method.parameters() if p.requires_grad),
        encoder_parameters=sum(p.numel() for p in method.evaluation_encoder().parameters()),
        device=str(trainer.strategy.root_device),
        precision=str(trainer.precision),
        warnings=monitor.warnings,
        left_out={key: bad.kind for key, bad in left_out.items()},
        data=StreamedData(
            position=loader.position,
            mix=dict(loader.stats.drawn),
            errors=dict(loader.stats.kinds),
            stalls=loader.stats.stalls,
        ),
    )
    result.write(run)
