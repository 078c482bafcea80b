"""Training within a budget: as many steps as fit into some processor time, by a short pilot.

CELL/training.json      what the training took
"""

import contextlib
import logging
import multiprocessing
import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import lightning as L
import psutil
import torch

from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa.training.result import PretrainResult
from jepa.training.run_state.checkpoints import FOLDER, LAST
from jepa.training.run_state.run_folder import DESCRIPTION, run_config
from jepa_probes.comparison.config import Budget
from jepa_probes.comparison.result import TrainingCost
from jepa_probes.probing.online import online_probe

logger = logging.getLogger(__name__)
PILOT_STEPS = 40  # the second half is timed: caches are warm then
PILOT_SHARE = 0.25  # of the budget: a pilot of slow steps ends there


def train(training: PretrainConfig, budget: Budget, folder: Path) -> TrainingCost:
    """Train into `folder`; what was begun goes on from its last checkpoint, what is finished stays.

    Raises:
        UserError: as `pretrain`.
    """
    if (done := TrainingCost.find([folder])) is not None:
        return done
    if (folder / DESCRIPTION).is_file():
        steps = run_config(folder).trainer.steps
    elif budget.steps is not None:
        steps = budget.steps
    else:
        assert budget.cpu_minutes is not None
        seconds = 60 * budget.cpu_minutes
        per_step = seconds_per_step(training, folder / "pilot", seconds * PILOT_SHARE)
        steps = max(1, int(seconds / per_step))
        logger.info(f"{steps} steps of {per_step:.3f} s fit into {budget.cpu_minutes:g} minutes of processor time")
    config = with_steps(training, steps)
    resume = (folder / FOLDER / LAST).is_file()
    watch = Watch()
    began = time.perf_counter()
    before = cpu_seconds()
    pretrain(config, resume=resume, overwrite=not resume, probe=online_probe(config), callbacks=(watch,))
    scale = steps / max(1, len(watch.times))  # of a training that went on
    cost = TrainingCost(
        steps=steps,
        seconds=round(scale * (time.perf_counter() - began), 2),
        cpu_seconds=round(scale * (cpu_seconds() - before), 2),
        peak_memory_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        peak_gpu_memory_mib=torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None,
    )
    cost.write(folder)
    return cost


def cost_of_run(run: Path) -> TrainingCost | None:
    """What a run noted of its training; None where it noted nothing."""
    noted = PretrainResult.find([run])
    if noted is None:
        return None
    return TrainingCost(steps=noted.steps, seconds=noted.seconds, cpu_seconds=None, peak_memory_mib=None)


def seconds_per_step(training: PretrainConfig, folder: Path, seconds: float) -> float:
    """Processor time of a step, of the second half of a few; the pilot takes about `seconds` at most."""
    watch = Watch(seconds)
    run = with_steps(training, PILOT_STEPS).model_copy(update={"run": str(folder)})
    quiet = run.trainer.model_copy(update={"probe_every": 0})
    try:
        pretrain(run.model_copy(update={"trainer": quiet}), overwrite=True, callbacks=(watch,))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    half = len(watch.times) // 2
    return (watch.times[-1] - watch.times[half - 1]) / (len(watch.times) - half)


def with_steps(training: PretrainConfig, steps: int) -> PretrainConfig:
    """The same training, as long as that."""
    return training.model_copy(update={"trainer": training.trainer.model_copy(update={"steps": steps})})


def cpu_seconds() -> float:
    """Of this process and of the loader's, also of those that have ended."""
    total = sum(os.times()[:4])
    for child in multiprocessing.active_children():
        with contextlib.suppress(psutil.Error):
            total += sum(psutil.Process(child.pid).cpu_times()[:2])
    return total


class Watch(L.Callback):
    """The processor time at the end of every step.

    Args:
        seconds: training stops after so many, once there are two steps to compare; None: it does not.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == len(self.times) and self.times:  # one of several batches of a step
            return
        self.times.append(cpu_seconds())
        if self.seconds is not None and len(self.times) > 2 and self.times[-1] - self.times[0] > self.seconds:
            trainer.should_stop = True
