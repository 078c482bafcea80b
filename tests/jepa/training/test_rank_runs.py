"""Runs of two and four processes, sharded or not, have the losses of one process; and each goes on as any other."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import Callback

from jepa.config import from_dict
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa.training.run_state.metrics_log import read_rows
from tests.jepa.test_rank_losses import CASES, side
from tests.torchrun import become_rank, free_port

STEPS = 10
RUNS = (
    "vjepa",
    "levjepa",
    "vpixel",
    "lewm",
    "pldm",
    "vae",
    "dreamer",
    "dreamer of embeddings",
    "vjepa_ac",
    "nwm",
    "mlp",
    "rssm",
    "mdn_rnn",
    "latent_variable",
)


def describe(name: str, run: Path, corpus: Path, ranks: int, strategy: str, **changes: Any) -> PretrainConfig:
    data = {"shards": str(corpus), "batch_size": 8, "clip_frames": 6, "image_size": side(name)}
    trainer = {"steps": STEPS, "device": "cpu", "precision": "fp32", "devices": ranks, "strategy": strategy}
    trainer |= {"log_every": 1, "monitor_every": 5, "checkpoint_every": 5, **changes}
    # Where gradients are next to nothing, as at first in adaptive blocks, AdamW makes steps of their last digits.
    optimizer = {"lr": 1e-4 if name == "nwm" else 1e-3}
    settings = {"run": str(run), "data": data, "trainer": trainer, "optimizer": optimizer}
    return from_dict(settings | CASES[name], PretrainConfig)


def losses_of(run: Path) -> list[float]:
    return [float(row["train/loss"]) for row in read_rows(run / "logs" / "metrics.csv") if row["train/loss"]]


def halfway(run: Path, copy: Path) -> Path:
    """A run as it was when it was killed after its fifth step."""
    shutil.copytree(run, copy)
    for name in ("step-10.ckpt", "last.ckpt"):
        (copy / "checkpoints" / name).unlink()
    shutil.rmtree(copy / "model")
    return copy


def train_all(
    rank: int, ranks: int, strategy: str, names: tuple[str, ...], folder: Path, corpus: Path, port: int
) -> None:
    """As torchrun starts it; each of the runs, and those of two ranks once more from half of their steps."""
    torch.set_num_threads(1)
    become_rank(rank, ranks, port)
    for name in names:
        pretrain(describe(name, folder / f"{name}-{strategy}-{ranks}", corpus, ranks, strategy))
    for name in names if ranks != 2 else ():
        for before in ("ddp", "fsdp2"):
            run = folder / f"{name}-{before}-2-{strategy}-{ranks}"
            pretrain(describe(name, run, corpus, ranks, strategy), resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("names", [RUNS], ids=["methods"])
def test_runs_of_two_and_four_ranks_have_the_losses_of_one_process(
    names: tuple[str, ...], corpus: Path, tmp_path: Path
) -> None:
    """Sharded or not; and one that two ranks began, sharded or not, goes on with one or four."""
    places = [(1, "ddp"), (4, "ddp"), (4, "fsdp2")]
    for ranks, strategy in ((2, "ddp"), (2, "fsdp2"), *places):
        if ranks != 2:
            for name, before in itertools.product(names, ("ddp", "fsdp2")):
                halfway(tmp_path / f"{name}-{before}-2", tmp_path / f"{name}-{before}-2-{strategy}-{ranks}")
        arguments = (ranks, strategy, names, tmp_path, corpus, free_port())
        mp.spawn(train_all, arguments, ranks)  # pyright: ignore[reportPrivateImportUsage]
    for name in names:
        expected = losses_of(tmp_path / f"{name}-ddp-1")
        assert len(expected) == STEPS
        runs = [run for run in tmp_path.glob(f"{name}-*") if run.name.removeprefix(f"{name}-")[:3] in ("ddp", "fsd")]
        assert len(runs) == 5 + 2 * len(places)
        for run in runs:
            assert losses_of(run) == pytest.approx(expected, rel=1e-5), run.name


class BadOnTheLast(Callback):
    """The third batch has pixels of NaN, in the last process alone."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        bad = batch_idx == 2 and trainer.global_rank == trainer.world_size - 1

        def inputs(clips: Any) -> Any:
            made = type(pl_module)._inputs(pl_module, clips)
            return replace(made, video=made.video * torch.nan) if bad else made

        pl_module._inputs = inputs


def train_over_a_bad_step(rank: int, ranks: int, strategy: str, folder: Path, corpus: Path, port: int) -> None:
    torch.set_num_threads(1)
    become_rank(rank, ranks, port)
    for name, later in itertools.product(("vjepa", "lewm"), (False, True)):
        config = describe(
            name, folder / f"{name}-{strategy}-{ranks}-{later}", corpus, ranks, strategy, not_finite="skip"
        )
        with patch("jepa.training.module.hears_later", lambda device, optimizer, later=later: later):
            pretrain(config, callbacks=(BadOnTheLast(),))


@pytest.mark.slow
def test_all_ranks_leave_out_a_step_that_is_bad_on_one(corpus: Path, tmp_path: Path) -> None:
    """Known at once or, as on a GPU, one step later; the losses after it are those of one process."""
    for ranks, strategy in ((1, "ddp"), (2, "ddp"), (2, "fsdp2")):
        arguments = (ranks, strategy, tmp_path, corpus, free_port())
        mp.spawn(train_over_a_bad_step, arguments, ranks)  # pyright: ignore[reportPrivateImportUsage]
    for name in ("vjepa", "lewm"):
        runs = list(tmp_path.glob(f"{name}-*"))
        assert len(runs) == 6
        expected = losses_of(tmp_path / f"{name}-ddp-1-False")
        assert len(expected) == STEPS and [step for step, x in enumerate(expected) if x != x] == [2]
        for run in runs:
            assert losses_of(run) == pytest.approx(expected, rel=1e-5, nan_ok=True), run.name
            assert json.loads((run / "pretrain.json").read_text())["skipped_steps"] == 1


WAYS = {"gathered": {"accumulate": 2, "steps": 5}, "bf16": {"precision": "bf16", "steps": 5}}


def train_in_ways(rank: int, ranks: int, strategy: str, folder: Path, corpus: Path, port: int) -> None:
    torch.set_num_threads(1)
    become_rank(rank, ranks, port)
    for name, way in itertools.product(("vjepa", "lewm"), WAYS):
        run = folder / f"{name}-{way}-{strategy}-{ranks}"
        pretrain(describe(name, run, corpus, ranks, strategy, **WAYS[way]))


@pytest.mark.slow
def test_ranks_gather_gradients_and_compute_in_bf16_as_one_process(corpus: Path, tmp_path: Path) -> None:
    for ranks, strategy in ((1, "ddp"), (2, "ddp"), (2, "fsdp2")):
        arguments = (ranks, strategy, tmp_path, corpus, free_port())
        mp.spawn(train_in_ways, arguments, ranks)  # pyright: ignore[reportPrivateImportUsage]
    for name, way in itertools.product(("vjepa", "lewm"), WAYS):
        expected = losses_of(tmp_path / f"{name}-{way}-ddp-1")
        assert len(expected) == 5
        for run in tmp_path.glob(f"{name}-{way}-*"):
            assert losses_of(run) == pytest.approx(expected, rel=1e-5 if way == "gathered" else 1e-2), run.name
