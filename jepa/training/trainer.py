"""From the description of a training to what Lightning and torch make of it: trainer, optimizer, schedule."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import nn

from jepa.config import UserError, first_line
from jepa.training import optim
from jepa.training.checkpoints import FOLDER, CheckpointFiles, Checkpoints
from jepa.training.config import CosineConfig, FlatConfig, LinearConfig, PretrainConfig, WSDConfig
from jepa.training.run_folder import LOGS


def optimizer_of(config: PretrainConfig) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """What makes the optimizer of a module."""
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


def make_trainer(config: PretrainConfig, callbacks: list[Callback]) -> L.Trainer:
    """Lightning's trainer of a run, which logs and saves below the run's folder.

    Raises:
        UserError: there is no such device.
    """
    run = Path(config.run)
    t = config.trainer
    if t.device == "cuda" and not torch.cuda.is_available():
        raise UserError("trainer.device is cuda, and torch finds no GPU; use trainer.device=auto")
    with quiet():
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
            logger=[CSVLogger(run, LOGS, ""), TensorBoardLogger(run, LOGS, "")],
            callbacks=[*callbacks, Checkpoints(run / FOLDER, t.checkpoint_every)],
            enable_progress_bar=any(isinstance(c, RichProgressBar) for c in callbacks),
            enable_model_summary=False,
            use_distributed_sampler=False,
            plugins=[CheckpointFiles(), *_cluster()],
            default_root_dir=run / LOGS,  # where Lightning looks for hpc_ckpt_N.ckpt under Slurm; by default in "."
        )


def _strategy(config: PretrainConfig) -> Strategy | str:
    """Of several processes, each has the whole model, and gradients are averaged."""
    if config.trainer.devices * config.trainer.nodes == 1:
        return "auto"
    # Where a batch may hold only pictures or only video, a patch embedding is not used by every step.
    assert config.encoder is not None
    return DDPStrategy(find_unused_parameters=config.encoder.may_skip_parameters)


def _cluster() -> list[ClusterEnvironment]:
    """Under Slurm, without Lightning's requeueing.

    That one saves to the working directory when Slurm signals the end of a job, and whatever run starts there next
    begins from those weights. A run here is resumed from its own folder, by --resume.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    try:
        return [SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:  # of the variables that srun has set
        raise UserError(f"Slurm: {first_line(error)}") from None


@contextmanager
def quiet() -> Iterator[None]:
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
            "Be aware that when using `ckpt_path`, callbacks",  # checkpoints of earlier versions
            "Found .* in eval mode at the start of training",  # encoders that are frozen
        ):
            warnings.filterwarnings("ignore", message=f".*{remark}.*")
        yield
