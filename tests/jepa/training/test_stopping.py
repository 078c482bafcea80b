"""A run that is told to stop saves the step it is at; `--resume` ends with the weights of one that was not stopped."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from jepa.config import UserError, from_dict
from jepa.training.callbacks.stopping import Stopping
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain

pytestmark = pytest.mark.usefixtures("one_thread")


def describe(run: Path, corpus: Path, *changes: str) -> PretrainConfig:
    description = {
        "run": str(run),
        "data": {"shards": str(corpus), "batch_size": 4, "clip_frames": 8},
        "encoder": {"kind": "conv", "width": 8, "channels": 8, "hidden": 32},
        "method": {"kind": "lewm", "directions": 16, "predictor": {"hidden": 32}},
        "trainer": {"steps": 6, "log_every": 1, "monitor_every": 100, "device": "cpu", "accumulate": 2},
    }
    return from_dict(description, PretrainConfig, changes)


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(describe(run, corpus))
    return run


def same(a: Path, b: Path) -> bool:
    first, second = (load_file(run / "model" / "model.safetensors") for run in (a, b))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Send(Callback):
    """A signal in the middle of the third step: in the first of its two batches."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 4:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("slurm", [False, True])
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 143), ("SIGINT", 130)])
def test_a_signal_ends_the_run_after_its_step_and_resuming_ends_with_the_same_weights(
    name: str,
    code: int,
    slurm: bool,
    whole: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    if slurm:  # variables of a job whose batch script calls the command
        for key, value in {
            "JOB_ID": "123456",
            "JOB_NAME": "train",
            "NTASKS": "4",
            "PROCID": "0",
            "NNODES": "2",
        }.items():
            monkeypatch.setenv(f"SLURM_{key}", value)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt if code == 130 else SystemExit) as ended:
        pretrain(describe(run, corpus), callbacks=(Send(getattr(signal, name)),))
    if isinstance(ended.value, SystemExit):
        assert ended.value.code == code
    assert any(f"stopped at step 3 by {name}" in line and "--resume" in line for line in caplog.messages)
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert {number: signal.getsignal(number) for number in before} == before
    assert not list((tmp_path / "elsewhere").iterdir())
    pretrain(describe(run, corpus), resume=True)
    assert same(whole, run)


def test_a_run_saves_and_stops_after_max_minutes(whole: Path, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as ended:
        pretrain(describe(run, corpus, "trainer.max_minutes=1e-6"))
    assert ended.value.code == 143
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 1
    pretrain(describe(run, corpus), resume=True)
    assert same(whole, run)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_second_signal_leaves_at_once() -> None:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_ask_thrice_to_stop, args=(there,))
    process.start()
    assert here.poll(60) and here.recv() == "still here"
    process.join(60)
    assert process.exitcode == -signal.SIGTERM


def _ask_thrice_to_stop(connection: Connection) -> None:
    Stopping(None).on_train_start(Mock(spec=L.Trainer), Mock(spec=L.LightningModule))
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # the same one twice, as `timeout` sends it
    time.sleep(1.1)
    connection.send("still here")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(100)


def test_srun_with_another_number_of_processes_is_one_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {"JOB_ID": "1", "STEP_NUM_TASKS": "4", "NTASKS": "4", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{key}", value)
    with pytest.raises(
        UserError, match=r"srun has started 4 processes, and the run has 1 \(trainer\.devices"
    ) as caught:
        pretrain(describe(tmp_path / "run", corpus))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_the_command_ends_with_143_when_all_its_processes_get_sigterm_workers_too(corpus: Path, tmp_path: Path) -> None:
    run, config = tmp_path / "run", tmp_path / "c.yaml"
    config.write_text(
        f"run: {run}\ndata: {{shards: {corpus}, batch_size: 4, clip_frames: 8, workers: 1}}\n"
        "encoder: {kind: conv, width: 8, channels: 8, hidden: 32}\nmethod: {kind: lewm, directions: 16}\n"
        "trainer: {steps: 100000, log_every: 1, checkpoint_every: 20, device: cpu}\n"
    )
    command = [sys.executable, "-m", "jepa.cli", "pretrain", str(config)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment, cwd=tmp_path
    ) as process:
        while process.poll() is None and not (run / "checkpoints" / "last.ckpt").exists():
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    found = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert found["global_step"] % 20, "the step it was at is saved, not only the regular ones"
