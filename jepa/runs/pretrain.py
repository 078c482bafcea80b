"""`jepa pretrain`: from a typed description to a trained model in a run folder.

RUN/config.yaml         the description with every default filled in
RUN/checkpoints/        of the training, to resume from
RUN/logs/               TensorBoard events and metrics.csv
RUN/model/              safetensors + JSON, what `jepa.load` reads; in model/predictor a masked predictor
RUN/pretrain.json       figures of the training
"""

import csv
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import nn

from jepa.config import UserError, dump, load
from jepa.methods.base import Method
from jepa.methods.levjepa import ASPECT
from jepa.runs.build import MEAN, STD
from jepa.runs.frozen import Source, random_weights, resolved
from jepa.runs.method import build_method, dynamics_of, history_of, trained
from jepa.runs.model import save
from jepa.runs.online_probe import OnlineProbe
from jepa.runs.scales import state_columns, training_scales
from jepa.runs.schema import (
    FrozenEncoderConfig,
    LeVJEPAConfig,
    PretrainConfig,
    VideoViTConfig,
)
from jepa.runs.starting import start_from
from jepa.runs.training import CosineConfig, FlatConfig, LinearConfig, WSDConfig
from jepa.training import optim
from jepa.training.callbacks.collapse import CollapseGauge
from jepa.training.callbacks.progress import Lines, Throughput
from jepa.training.module import Pretraining
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing
from jepa_data.actions import ActionStats
from jepa_data.config import AugmentConfig, CropConfig
from jepa_data.shards.clips import Bad
from jepa_data.shards.moments import action_stats
from jepa_data.shards.stream import ClipLoader, make_loader

LAST = "last.ckpt"


def pretrain(
    config: PretrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
    bar: bool = False,
    callbacks: tuple[Callback, ...] = (),
) -> LatentWorldModel:
    """Train, and write the run folder.

    Args:
        resume: go on from the last checkpoint of the folder.
        overwrite: start anew in a folder that already holds a run.
        say: told a line at a time how the run goes.
        bar: draw a progress bar instead of printing lines.
        callbacks: more of Lightning's, for users in Python.

    Raises:
        UserError: the folder, the data and the config do not fit; the loss is not finite.
    """
    run = Path(config.run)
    config, source = resolved(config)
    gauge = _gauge(config)
    speed = Throughput()
    progress = RichProgressBar() if bar else Lines(say)
    probe = _online_probe(config, say)
    # The gauges log, so they come before the callback that saves what was logged.
    trainer = _trainer(config, run, [gauge, *([probe] if probe else []), speed, progress, *callbacks])
    writes = trainer.is_global_zero  # of several processes, the one that writes and speaks
    last = _claim(run, config, resume, overwrite, writes=writes)
    batches = config.trainer.steps * config.trainer.accumulate
    loader = make_loader(
        config.data,
        "train",
        seed=config.seed,
        total_batches=batches,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )
    for note in loader.notes if writes else ():
        say(note)
    if loader.action_size and config.data.augment.flip:
        raise UserError("data.augment.flip mirrors the pictures and not the actions; use it for video without actions")
    if random_weights(config) and writes:
        say("the encoder is frozen with random weights; name trained ones: method.encoder_from, or encoder.pretrained")
    preprocessing, columns = _preprocessing(config, loader, source), state_columns(config, loader)
    stats = action_stats(loader) if loader.action_size and dynamics_of(config) is not None else None
    scales = training_scales(config, loader, stats)
    method = build_method(config, preprocessing.image_size, loader.action_size, scales)
    assert isinstance(method, nn.Module)
    moments = start_from(config.init_from, method) if config.init_from and last is None else None
    module = _module(config, method, preprocessing, moments, columns)
    earlier = _read_metrics(run) if last and writes else []
    try:
        with _quiet():
            trainer.fit(module, train_dataloaders=loader, ckpt_path=last, weights_only=True)
    except SystemExit as stopped:  # what Lightning makes of Ctrl-C
        say(f"stopped; --resume goes on from {run / 'checkpoints' / LAST}, if it was written")
        raise KeyboardInterrupt from stopped
    finally:
        if writes:
            _write_metrics(run, earlier)
    model = trained(config, method, _spec(config, method, preprocessing, loader, stats), preprocessing)
    left_out = _left_out(loader)
    if writes:
        for bad in left_out.values():
            say(f"left out: {bad.key} in {bad.shard}: {bad.kind}")
        save(model, run / "model")
        _write_summary(run, config, method, trainer, gauge, probe, speed, loader, left_out)
        say(f"{run / 'model'}: what `jepa.load` reads. Next: jepa probe {run}")
    return model.world


def _gauge(config: PretrainConfig) -> CollapseGauge:
    """An encoder that is frozen does not collapse, so there is nothing to warn of."""
    least = 0.0 if isinstance(config.method, FrozenEncoderConfig) else config.trainer.warn_rank_below
    return CollapseGauge(config.trainer.gauge_every, least, _views(config))


def _views(config: PretrainConfig) -> AugmentConfig | None:
    """How this run makes other views of a clip; None if it does not."""
    augment, crop = config.data.augment, config.data.augment.crop or config.data.crop
    if isinstance(config.method, LeVJEPAConfig):
        crop = CropConfig(scale=config.method.global_scale, ratio=ASPECT)
    augment = augment.model_copy(update={"crop": crop})
    return None if augment == AugmentConfig() else augment


def _online_probe(config: PretrainConfig, say: Callable[[str], None]) -> OnlineProbe | None:
    t = config.trainer
    if not t.probe_every:
        return None
    assert config.encoder is not None
    return OnlineProbe(config.data, t.probe_every, t.probe, config.encoder.tubelet, config.seed, say)


def _left_out(loader: ClipLoader) -> dict[str, Bad]:
    """What could not be read, by any process."""
    if not (dist.is_available() and dist.is_initialized()):
        return loader.bad
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, loader.bad)
    return {key: bad for part in found for key, bad in part.items()}


def _module(
    config: PretrainConfig,
    method: Method,
    preprocessing: Preprocessing,
    moments: dict[int, Any] | None,
    columns: tuple[int, ...],
) -> Pretraining:
    first, last = config.optimizer.weight_decay, config.optimizer.final_weight_decay
    return Pretraining(
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
        moments=moments,
    )


def precision(config: PretrainConfig) -> str:
    """Lightning's name of the precision: `auto` is bf16 where the processor multiplies it natively."""
    cuda = config.trainer.device == "cuda" or (config.trainer.device == "auto" and torch.cuda.is_available())
    chosen = config.trainer.precision
    if chosen == "auto":
        native = torch.cuda.is_bf16_supported() if cuda else _cpu_has_bf16()
        chosen = "bf16" if native else "fp32"
    return {"bf16": "bf16-mixed", "fp32": "32-true"}[chosen]


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _claim(run: Path, config: PretrainConfig, resume: bool, overwrite: bool, *, writes: bool) -> str | None:
    """Make the run folder this run's own, unless another process `writes`; the checkpoint to go on from, if any."""
    described, last = run / "config.yaml", run / "checkpoints" / LAST
    if resume:
        if not last.is_file():
            raise UserError(f"{run}: nothing to resume: {last} does not exist. Start the run without --resume.")
        before = load(described, PretrainConfig)
        changed = [
            name for name in ("seed", "data", "encoder", "method") if getattr(before, name) != getattr(config, name)
        ]
        if changed:
            raise UserError(
                f"{last} is a checkpoint of another model: {', '.join(changed)} differ from {described}. "
                "Resume with the same config, or give another run=FOLDER."
            )
        return str(last)
    if not writes:
        return None
    if described.exists() and not overwrite:
        raise UserError(f"{run} already holds a run; give another run=FOLDER, or --resume, or --overwrite")
    run.mkdir(parents=True, exist_ok=True)
    for old in (last, run / "logs" / "metrics.csv"):
        old.unlink(missing_ok=True)
    described.write_text(dump(config))
    return None


def _preprocessing(config: PretrainConfig, loader: ClipLoader, source: Source | None) -> Preprocessing:
    manifest = loader.shards.manifest
    size, fps = config.data.image_size or manifest.image_size, config.data.fps or manifest.fps
    if size is None or fps is None:
        what = "data.image_size" if size is None else "data.fps"
        raise UserError(f"{loader.shards.url}: its videos differ in this; say what the model gets: {what}=NUMBER")
    return Preprocessing(size, fps, *((MEAN, STD) if source is None else (source.mean, source.std)))


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
        history=history_of(config),
        states=config.method.states if isinstance(config.method, FrozenEncoderConfig) else (),
        actions=stats,
    )


def optimizer_of(config: PretrainConfig) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """What makes the optimiser of a module."""
    return partial(optim.adamw, **config.optimizer.model_dump(exclude={"final_weight_decay"}))


def schedule_of(config: PretrainConfig) -> Callable[[int], float]:
    """Factor of the learning rate by step.

    Raises:
        UserError: the parts of the schedule are longer than the run.
    """
    lr, steps = config.optimizer.lr, config.trainer.steps
    try:
        match config.schedule:
            case CosineConfig(warmup_steps=warmup, start_lr=start, final_lr=final):
                return optim.cosine(steps, warmup, final / lr, start / lr)
            case FlatConfig(warmup_steps=warmup, start_lr=start):
                return optim.flat(warmup, start / lr)
            case WSDConfig(warmup_steps=warmup, decay_steps=decay, start_lr=start, final_lr=final):
                return optim.wsd(steps, warmup, decay, final / lr, start / lr)
            case LinearConfig(final_lr=final):
                return optim.wsd(steps, 0, steps, final / lr)
    except ValueError as error:
        raise UserError(f"schedule: {error}") from error


def _trainer(config: PretrainConfig, run: Path, callbacks: list[Callback]) -> L.Trainer:
    t = config.trainer
    if t.device == "cuda" and not torch.cuda.is_available():
        raise UserError("trainer.device is cuda, and torch finds no GPU; use trainer.device=auto")
    checkpoints = ModelCheckpoint(
        run / "checkpoints",
        filename="step-{step}",
        auto_insert_metric_name=False,
        every_n_train_steps=t.checkpoint_every,
        save_last=True,
        enable_version_counter=False,
    )
    with _quiet():
        return L.Trainer(
            accelerator=t.device,
            devices=t.devices,
            num_nodes=t.nodes,
            strategy=_strategy(config),
            sync_batchnorm=t.devices * t.nodes > 1 and t.device != "cpu",
            precision=precision(config),  # pyright: ignore[reportArgumentType]
            max_steps=t.steps,
            accumulate_grad_batches=t.accumulate,
            max_epochs=1,  # the loader runs through as many epochs of the data as the steps take
            gradient_clip_val=t.clip_norm,
            log_every_n_steps=t.log_every,
            logger=[CSVLogger(run, "logs", ""), TensorBoardLogger(run, "logs", "")],
            callbacks=[*callbacks, checkpoints],
            enable_progress_bar=any(isinstance(c, RichProgressBar) for c in callbacks),
            enable_model_summary=False,
            use_distributed_sampler=False,
        )


def _strategy(config: PretrainConfig) -> Strategy | str:
    """Of several processes, each has the whole model, and gradients are averaged."""
    if config.trainer.devices * config.trainer.nodes == 1:
        return "auto"
    # Where a batch may hold only pictures or only video, a patch embedding is not used by every step.
    return DDPStrategy(find_unused_parameters=isinstance(config.encoder, VideoViTConfig) and config.encoder.images)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advertisements and its remarks on what is done here on purpose are not shown."""
    with warnings.catch_warnings():
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for remark in (
            "isinstance.treespec, LeafSpec.. is deprecated",  # Lightning 2.6 on torch 2.14
            "Checkpoint directory .* exists",
            "The number of training batches .* is smaller than the logging interval",
            "Experiment logs directory",
            "The `train_dataloader` does not have many workers",
            "You're resuming from a checkpoint that ended before the epoch ended",
            "Found .* in eval mode at the start of training",  # encoders that are frozen
        ):
            warnings.filterwarnings("ignore", message=f".*{remark}.*")
        yield


def _read_metrics(run: Path) -> list[dict[str, str]]:
    path = run / "logs" / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write_metrics(run: Path, earlier: list[dict[str, str]]) -> None:
    """Put the rows of the part before a resume in front: Lightning's logger starts its file anew."""
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


def _write_summary(
    run: Path,
    config: PretrainConfig,
    method: Method,
    trainer: L.Trainer,
    gauge: CollapseGauge,
    probe: OnlineProbe | None,
    speed: Throughput,
    loader: ClipLoader,
    left_out: dict[str, Bad],
) -> None:
    assert isinstance(method, nn.Module)
    summary: dict[str, Any] = {
        "method": config.method.kind,
        "steps": trainer.global_step,
        "clips_per_second": round(speed.clips / speed.seconds, 2) if speed.seconds else None,
        "wait_share": round(loader.stats.wait_share, 4),
        **gauge.values,
        "gauge_seconds": round(gauge.seconds, 2),
        "probe": None if probe is None else probe.scores | {"seconds": round(probe.seconds, 2)},
        "seconds": round(speed.seconds, 2),
        "parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "encoder_parameters": sum(p.numel() for p in method.evaluation_encoder().parameters()),
        "device": str(trainer.strategy.root_device),
        "precision": trainer.precision,
        "warnings": gauge.warnings,
        "left_out": {key: bad.kind for key, bad in left_out.items()},
        "data": {
            "position": loader.position,
            "mix": dict(loader.stats.drawn),
            "errors": dict(loader.stats.kinds),
            "stalls": loader.stats.stalls,
        },
    }
    (run / "pretrain.json").write_text(json.dumps(summary, indent=2) + "\n")
