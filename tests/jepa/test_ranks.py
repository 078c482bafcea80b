"""Statistics of a batch over two ranks are those of one process with the whole batch: values, gradients, and runs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from jepa.objectives.latent_regression import standardized
from jepa.objectives.sigreg import sigreg
from jepa.objectives.vicreg import covariance, variance
from jepa.ranks import RankBatchNorm
from jepa.training.run_state.metrics_log import read_rows

RANKS = 2


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def batch_norm(x: Tensor, module: type[nn.BatchNorm1d]) -> Tensor:
    norm = module(x.shape[-1])
    y = norm(x)
    norm.eval()
    return y.pow(3).mean() + norm(torch.ones(1, x.shape[-1])).sum()  # the last by the running statistics


def losses(norm: type[nn.BatchNorm1d]) -> dict[str, Callable[[Tensor], Tensor]]:
    weight = torch.linspace(-1, 1, 5)
    return {
        "sigreg": lambda z: sigreg(z, generator(), 8),
        "variance": lambda z: variance(0.3 * z),
        "covariance": covariance,
        "channel": lambda z: (standardized(z[None]) * weight).pow(2).mean(),
        "batch norm": lambda z: batch_norm(z, norm),
    }


def whole() -> tuple[Tensor, Tensor]:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    return x, torch.randn(5, 4, generator=generator()).requires_grad_()


def value_and_gradient(loss: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(x.sinh() @ weight.T)
    return value.detach(), torch.autograd.grad(value, weight)[0]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=RANKS)
    x, weight = whole()
    found = {}
    for name, loss in losses(RankBatchNorm).items():
        value, gradient = value_and_gradient(loss, x.chunk(RANKS)[rank], weight)
        for each in (value, gradient):  # as DDP
            dist.all_reduce(each)
        found[name] = [value / RANKS, gradient / RANKS]
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()


def test_values_and_gradients_of_two_ranks_are_those_of_one_process(tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), RANKS)  # pyright: ignore[reportPrivateImportUsage]
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    x, weight = whole()
    for name, loss in losses(nn.BatchNorm1d).items():
        for got, expected in zip(found[name], value_and_gradient(loss, x, weight), strict=True):
            assert torch.allclose(got, expected, rtol=1e-5, atol=1e-6), (name, got, expected)


RUNS = {
    "lewm": "{kind: lewm, directions: 16, predictor: {hidden: 32}}",
    "pldm": "{kind: pldm, predictor: {hidden: 32}}",
}


def train(run: Path, corpus: Path, method: str, devices: int, *words: str) -> list[float]:
    """Losses of the steps, by the command."""
    config = run.with_suffix(".yaml")
    config.write_text(
        f"run: {run}\ndata: {{shards: {corpus}, batch_size: 8, clip_frames: 8}}\n"
        f"encoder: {{kind: conv, width: 8, channels: 8, hidden: 32}}\nmethod: {RUNS[method]}\n"
        f"trainer: {{steps: 6, device: cpu, precision: fp32, devices: {devices}, log_every: 1, monitor_every: 100}}\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "jepa.cli", "pretrain", str(config), *words]
    ended = subprocess.run(
        command, cwd=run.parent, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return [float(row["train/loss"]) for row in read_rows(run / "logs" / "metrics.csv")]


@pytest.mark.slow
@pytest.mark.parametrize("method", RUNS)
def test_a_run_of_two_ranks_has_the_losses_of_one_process(method: str, corpus: Path, tmp_path: Path) -> None:
    one = train(tmp_path / "one", corpus, method, 1)
    two = train(tmp_path / "two", corpus, method, 2)
    assert len(one) == len(two) == 6
    assert two == pytest.approx(one, rel=1e-5)
