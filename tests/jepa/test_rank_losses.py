"""Losses and gradients over several ranks are those of one process with the whole batch, whether each rank has all
weights or a part of them: of every method, and of each statistic of a batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from jepa.config import from_dict
from jepa.methods.base import Batch, Method
from jepa.objectives.latent_regression import standardized
from jepa.objectives.sigreg import sigreg
from jepa.objectives.vicreg import covariance, variance
from jepa.ranks import RankBatchNorm
from jepa.training.build_method import build_method
from jepa.training.config import PretrainConfig
from jepa.training.seeds import seeded
from jepa.training.sharding import shard, whole
from jepa.training.trainer import BatchNormOverRanks

CLIPS, FRAMES, SIDE, ACTION = 8, 6, 32, 2
VIT = {"kind": "video_vit", "patch": 8, "width": 24, "depth": 2, "heads": 2}
CONV = {"kind": "conv", "width": 8, "channels": 8, "hidden": 16}
PER_FRAME = {"kind": "per_frame", "of": VIT | {"tubelet": 2}}
MASKED = {"width": 24, "depth": 1, "heads": 2}
RSSM = {"kind": "rssm", "recurrent_size": 16, "hidden": 16, "categoricals": 2, "classes": 4, "blocks": 2}
CDIT = {"kind": "cdit", "hidden": 16, "depth": 1, "heads": 2, "context": 2}


def latent(predictor: dict[str, Any], encoder: dict[str, Any] = CONV) -> dict[str, Any]:
    return {"encoder": encoder, "method": {"kind": "latent_dynamics", "predictor": predictor}}


CASES: dict[str, dict[str, Any]] = {
    "vjepa": {"encoder": VIT, "method": {"kind": "vjepa", "predictor": MASKED}},
    "vjepa of images and video": {
        "encoder": VIT | {"images": True, "levels": [0, 1]},
        "method": {"kind": "vjepa", "predictor": MASKED, "dense": {"weight": 0.5, "start": 0, "end": 1}},
    },
    "levjepa": {"encoder": VIT | {"cls_token": True}, "method": {"kind": "levjepa", "directions": 16}},
    "vpixel": {"encoder": VIT, "method": {"kind": "vpixel", "predictor": MASKED}},
    "lewm": {"encoder": CONV, "method": {"kind": "lewm", "directions": 16, "predictor": {"hidden": 16}}},
    "pldm": {"encoder": CONV, "method": {"kind": "pldm", "predictor": {"hidden": 16}}},
    "vae": {"encoder": {"kind": "vae", "width": 4}, "method": {"kind": "vae"}},
    "dreamer": {"encoder": CONV, "method": {"kind": "dreamer", "predict": "nothing", "predictor": RSSM}},
    "dreamer of embeddings": {
        "encoder": CONV,
        "method": {"kind": "dreamer", "predict": "nothing", "predictor": RSSM, "reconstruct": "embedding"},
    },
    "vjepa_ac": {
        "encoder": PER_FRAME,
        "method": {"kind": "vjepa_ac", "predictor": {"hidden": 24, "depth": 1, "heads": 2}},
    },
    "nwm": {"encoder": PER_FRAME, "method": {"kind": "nwm", "predictor": CDIT}},
    "mlp": latent({"kind": "mlp", "hidden": 16}),
    "gru": latent({"kind": "gru"}),
    "mdn_rnn": latent({"kind": "mdn_rnn", "hidden": 16}),
    "rssm": latent(RSSM),
    "latent_variable": latent({"kind": "latent_variable"}),
    "cdit": latent(CDIT),
}
SHARDED_BY_TWO = ("vjepa", "lewm", "vjepa_ac", "nwm")  # all but images by four
FEW = (*SHARDED_BY_TWO, "vjepa of images and video", "levjepa", "vae", "dreamer", "latent_variable")


def build(name: str) -> Method:
    tree = {
        "run": "",
        "data": {"shards": "", "batch_size": CLIPS, "clip_frames": FRAMES},
        "trainer": {"steps": 1},
    }
    config = from_dict(tree | CASES[name], PretrainConfig)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    method = build_method(config, side(name), 0 if "levjepa" in name or "vae" in name else ACTION, ())
    with torch.no_grad():  # outputs that begin at zero hide what is before them
        for parameter in method.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return method


def side(name: str) -> int:
    return 64 if name == "vae" else SIDE


def batch(name: str) -> Batch:
    generator = torch.Generator().manual_seed(1)
    video = torch.randn(CLIPS, FRAMES, 3, side(name), side(name), generator=generator)
    actions = torch.randn(CLIPS, FRAMES - 1, ACTION, generator=generator)
    images = torch.arange(CLIPS) < CLIPS // 2 if "images" in name else None  # one of two ranks has no video
    return Batch(video, actions, images)


def loss_and_gradients(method: Method, clips: Batch) -> list[Tensor]:
    loss = method.loss(clips, seeded(0, 7, 0))["loss"]
    trained = [p for p in method.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)
    return [loss.detach(), *gradients]


def part(clips: Batch, rank: int, ranks: int) -> Batch:
    rows = torch.arange(CLIPS).chunk(ranks)[rank]
    changes = {name: None if (x := getattr(clips, name)) is None else x[rows] for name in ("video", "actions")}
    return replace(clips, **changes, is_image=None if clips.is_image is None else clips.is_image[rows])


def averaged(method: Method, clips: Batch) -> list[Tensor]:
    """As DDP."""
    found = loss_and_gradients(method, clips)
    for each in found:
        dist.all_reduce(each)
        each /= dist.get_world_size()
    return found


def sharded(method: Method, clips: Batch, mesh: DeviceMesh) -> list[Tensor]:
    whole_size = sum(p.numel() for p in method.parameters() if p.requires_grad)
    shard(method, mesh)
    trained = [p for p in method.parameters() if p.requires_grad]
    here = sum(p.to_local().numel() for p in trained if isinstance(p, DTensor))
    assert here < 0.8 * whole_size  # small ones are not divided
    if clips.video.shape[-1] == SIDE:
        method.encode(clips.video)
        method.reshard()  # pyright: ignore[reportCallIssue] - of FSDPModule
    loss = method.loss(clips, seeded(0, 7, 0))["loss"]
    loss.backward()
    mean = loss.detach()
    dist.all_reduce(mean)
    found = [torch.zeros(p.shape) if p.grad is None else whole(p.grad) for p in trained]
    method.after_step(1, 10)
    return [mean / dist.get_world_size(), *found]


def one_generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def batch_norm(x: Tensor, module: type[nn.BatchNorm1d]) -> Tensor:
    norm = module(x.shape[-1])
    y = norm(x)
    norm.eval()
    return y.pow(3).mean() + norm(torch.ones(1, x.shape[-1])).sum()  # the last by the running statistics


def losses(norm: type[nn.BatchNorm1d]) -> dict[str, Callable[[Tensor], Tensor]]:
    weight = torch.linspace(-1, 1, 5)
    return {
        "sigreg": lambda z: sigreg(z, one_generator(), 8),
        "variance": lambda z: variance(0.3 * z),
        "covariance": covariance,
        "channel": lambda z: (standardized(z[None]) * weight).pow(2).mean(),
        "batch norm": lambda z: batch_norm(z, norm),
    }


def points() -> tuple[Tensor, Tensor]:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    return x, torch.randn(5, 4, generator=one_generator()).requires_grad_()


def value_and_gradient(loss: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(x.sinh() @ weight.T)
    return value.detach(), torch.autograd.grad(value, weight)[0]


def statistics(rank: int, ranks: int) -> dict[str, list[Tensor]]:
    x, weight = points()
    found = {}
    for name, loss in losses(RankBatchNorm).items():
        found[name] = list(value_and_gradient(loss, x.chunk(ranks)[rank], weight))
        for each in found[name]:  # as DDP
            dist.all_reduce(each)
            each /= ranks
    return found


def work(rank: int, ranks: int, folder: str, names: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    found: dict[str, Any] = {"statistics": statistics(rank, ranks)}
    for name in names:
        method = BatchNormOverRanks().apply(build(name))
        assert isinstance(method, Method)
        clips = part(batch(name), rank, ranks)
        found[name] = [averaged(method, clips)]
        if "images" not in name and (ranks > 2 or name in SHARDED_BY_TWO):
            found[name].append(sharded(method, clips, mesh))
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("ranks", "names"), [(2, FEW), *(pytest.param(ranks, tuple(CASES), marks=pytest.mark.slow) for ranks in (2, 4))]
)
def test_loss_and_gradients_over_ranks_are_those_of_one_process(
    ranks: int, names: tuple[str, ...], tmp_path: Path
) -> None:
    mp.spawn(work, (ranks, str(tmp_path), names), ranks)  # pyright: ignore[reportPrivateImportUsage]
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    x, weight = points()
    for name, loss in losses(nn.BatchNorm1d).items():
        for got, exact in zip(found["statistics"][name], value_and_gradient(loss, x, weight), strict=True):
            assert torch.allclose(got, exact, rtol=1e-5, atol=1e-6), (name, got, exact)
    for name in names:
        expected = loss_and_gradients(build(name), batch(name))
        largest = max(gradient.abs().max() for gradient in expected[1:])
        assert largest > 0, name
        for loss, *gradients in found[name]:
            assert loss == pytest.approx(expected[0].item(), rel=1e-5), name
            for got, gradient in zip(gradients, expected[1:], strict=True):
                assert torch.allclose(got, gradient, rtol=1e-3, atol=1e-5 * largest.item()), name
