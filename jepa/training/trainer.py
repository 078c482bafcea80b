"""From the description of a training to Lightning's trainer."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.plugins.layer_sync import LayerSync
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import nn

from jepa.config import UserError, errors_of
from jepa.ranks import RankBatchNorm
from jepa.training.config import TrainerConfig
from jepa.training.run_state.checkpoints import FOLDER, CheckpointFiles, Checkpoints
from jepa.training.run_state.metrics_log import EventsLog, MetricsLog, quiet_writer
from jepa.training.run_state.run_folder import LOGS
from jepa.training.sharding import FSDP2
from jepa_data.devices import multiplies_bf16

OF_A_TASK = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")


def precision(t: TrainerConfig) -> str:
    """Lightning's name of the precision: `auto` is bf16 where the processor multiplies it natively."""
    on_gpu = t.device == "cuda" or (t.device == "auto" and torch.cuda.is_available())
    if t.precision == "bf16" or (t.precision == "auto" and multiplies_bf16("cuda" if on_gpu else "cpu")):
        return "bf16-mixed"
    return "32-true"


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
    strategy = _strategy(t, may_skip_parameters)
    over_ranks = [] if strategy == "auto" else [BatchNormOverRanks()]
    with quiet(), errors_of("trainer"):  # such as numbers of Slurm that contradict each other
        return L.Trainer(
            accelerator=t.device,
            devices=t.devices,
            num_nodes=t.nodes,
            strategy=strategy,
            precision=precision(t),  # pyright: ignore[reportArgumentType]
            max_steps=t.steps,
            accumulate_grad_batches=t.accumulate,
            max_epochs=1,  # the loader runs through as many epochs of the data as the steps take
            gradient_clip_val=t.clip_norm,
            log_every_n_steps=t.log_every,
            logger=[MetricsLog(run / LOGS), EventsLog(run / LOGS)],
            callbacks=[*callbacks, Checkpoints(run / FOLDER, t.checkpoint_every, t.keep_last)],
            enable_progress_bar=any(isinstance(c, RichProgressBar) for c in callbacks),
            enable_model_summary=False,
            use_distributed_sampler=False,
            plugins=[CheckpointFiles(), *_cluster(t.devices * t.nodes), *over_ranks],
            default_root_dir=run / LOGS,  # where Lightning looks for hpc_ckpt_N.ckpt under Slurm; by default in "."
        )


def _strategy(t: TrainerConfig, may_skip_parameters: bool) -> Strategy | str:
    """How several processes share a step.

    Raises:
        UserError: the weights are to be sharded, and processes may need different ones in one step.
    """
    processes = t.devices * t.nodes
    if processes == 1:
        return "auto"
    if t.strategy == "ddp":
        return DDPStrategy(find_unused_parameters=may_skip_parameters)
    if may_skip_parameters:
        raise UserError(
            "trainer.strategy: fsdp2 gathers the same weights in all processes at the same time, and with images and "
            "video in one batch they need different ones; use ddp, or encoder.images=false and video alone"
        )
    return FSDP2(processes)


def _cluster(processes: int) -> list[ClusterEnvironment]:
    """Who starts the processes of a run: torchrun, srun, or the command itself, whatever else a job of Slurm has set.

    Slurm's variables stand in the environment of a whole job, also where nobody called srun; SLURM_STEP_NUM_TASKS is
    srun's own. Lightning's requeueing is left out: it saves to the working directory when Slurm signals the end of a
    job, and whatever run starts there next begins from those weights.

    Raises:
        UserError: srun has started another number of processes than the config asks for.
    """
    if TorchElasticEnvironment.detect():
        return []
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks == "1" or not tasks.isdecimal():
        return [LightningEnvironment()]
    if int(tasks) != processes:
        raise UserError(
            f"srun has started {tasks} processes, and the run has {processes} (trainer.devices x trainer.nodes). Give "
            f"srun --ntasks={processes}, or set trainer.devices to the tasks of a machine and trainer.nodes"
        )
    if missing := [name for name in ("SLURM_NTASKS", *OF_A_TASK) if not os.environ.get(name, "").isdecimal()]:
        raise UserError(f"Slurm: {missing[0]} is missing or no number; start the processes with srun or torchrun")
    return [SLURMEnvironment(auto_requeue=False)]


class BatchNormOverRanks(LayerSync):
    """Lightning's hook that lets the BatchNorm of a model be over all ranks while it trains; names stay as they are."""

    def apply(self, model: nn.Module) -> nn.Module:
        return _replace(model, nn.BatchNorm1d, RankBatchNorm)

    def revert(self, model: nn.Module) -> nn.Module:
        return _replace(model, RankBatchNorm, nn.BatchNorm1d)


def _replace(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> nn.Module:
    for module in model.modules():
        if type(module) is old:
            module.__class__ = new
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning's advertisements and its remarks on what is done here on purpose are not shown."""
    with warnings.catch_warnings(), quiet_writer():
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
            "Torchinductor does not support code generation for complex operators",  # it only views the rotary table
        ):
            warnings.filterwarnings("ignore", message=f".*{remark}.*")
        yield
