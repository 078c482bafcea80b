"""From the description of a training to Lightning's trainer."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from jepa.config import UserError, first_line
from jepa.training.checkpoints import FOLDER, CheckpointFiles, Checkpoints
from jepa.training.config import TrainerConfig
from jepa.training.run_folder import LOGS


def precision(t: TrainerConfig) -> str:
    """Lightning's name of the precision: `auto` is bf16 where the processor multiplies it natively."""
    if t.precision == "bf16" or (t.precision == "auto" and _has_bf16(t)):
        return "bf16-mixed"
    return "32-true"


def _has_bf16(t: TrainerConfig) -> bool:
    if t.device == "cuda" or (t.device == "auto" and torch.cuda.is_available()):
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def make_trainer(t: TrainerConfig, run: Path, callbacks: list[Callback], *, may_skip_parameters: bool) -> L.Trainer:
    """Lightning's trainer of a run, which logs and saves below the folder `run`.

    Args:
        may_skip_parameters: where a batch may hold only images or only video, a patch embedding is not used by every
            step.

    Raises:
        UserError: there is no such device.
    """
    if t.device == "cuda" and not torch.cuda.is_available():
        raise UserError("trainer.device is cuda, and torch finds no GPU; use trainer.device=auto")
    several = t.devices * t.nodes > 1  # each has the whole model, and gradients are averaged
    with quiet():
        return L.Trainer(
            accelerator=t.device,
            devices=t.devices,
            num_nodes=t.nodes,
            strategy=DDPStrategy(find_unused_parameters=may_skip_parameters) if several else "auto",
            sync_batchnorm=several and t.device != "cpu",
            precision=precision(t),  # pyright: ignore[reportArgumentType]
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
