"""A run in parts: gathered gradients, a changing weight decay, and a cooldown that starts from another run."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from jepa.config import UserError, from_dict
from jepa.encoders.video_vit import VideoViT
from jepa.masks.causal import Causal
from jepa.methods.base import ClipShape
from jepa.methods.vjepa import VJEPA
from jepa.predictors.masked import MaskedPredictor
from jepa.training.build_method import build_method
from jepa.training.config import PretrainConfig
from jepa.training.module import Pretraining
from jepa.training.optim import Optimization
from jepa.training.pretrain import pretrain
from jepa.training.run_state.resume import start_from
from jepa.training.schedules.cosine import half_cosine
from jepa_data.config import AugmentConfig
from jepa_data.types import ClipBatch

pytestmark = pytest.mark.usefixtures("one_thread")


def describe(run: Path, corpus: Path, **changes: Any) -> PretrainConfig:
    description: dict[str, Any] = {
        "run": str(run),
        "data": {"shards": str(corpus), "batch_size": 4, "clip_frames": 4, "image_size": 16},
        "encoder": {"kind": "video_vit", "patch": 8, "width": 24, "depth": 1, "heads": 2},
        "method": {"kind": "vjepa", "ema": [0.9, 0.9], "predictor": {"width": 24, "depth": 1, "heads": 2}},
        "trainer": {"steps": 6, "log_every": 1, "monitor_every": 2, "checkpoint_every": 3, "device": "cpu"},
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        description[part] = {**description[part], name: value} if name else value
    return from_dict(description, PretrainConfig)


class StopAt(L.Callback):
    """As Ctrl-C does, after this batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            raise KeyboardInterrupt


def clips(count: int, seed: int) -> ClipBatch:
    video = torch.randint(0, 256, (count, 4, 3, 16, 16), generator=torch.Generator().manual_seed(seed))
    return ClipBatch(
        video.to(torch.uint8), None, None, tuple(map(str, range(count))), torch.zeros(count), seeds=torch.arange(count)
    )


def joined(parts: list[ClipBatch]) -> ClipBatch:
    video = torch.cat([part.video for part in parts])
    return replace(
        clips(len(video), 0),
        video=video,
        keys=tuple(map(str, range(len(video)))),
        start_seconds=torch.zeros(len(video)),
    )


def trained(batches: list[ClipBatch], accumulate: int, steps: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    encoder = VideoViT(VideoViT.Config(patch=8, tubelet=2, width=24, depth=1, heads=2), 16, 4)
    predictor = MaskedPredictor.Config(width=24, depth=1, heads=2)
    # A causal mask draws nothing at random.
    config = VJEPA.Config(predictor=predictor, masks=(Causal.Config(),), ema=(0.9, 0.9))
    method = VJEPA(config, encoder, ClipShape(4))

    def sgd(module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.1)

    module = Pretraining(
        method,
        Optimization(sgd, lambda step: 1.0),
        seed=0,
        total_steps=steps,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        augment=AugmentConfig.model_validate({}),
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(batches, batch_size=None))
    assert method.step.item() == steps
    return method.state_dict()


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and logging
def test_gathered_gradients_are_those_of_one_large_batch():
    parts = [clips(3, seed) for seed in range(6)]
    small = trained(parts, 3, 2)
    large = trained([joined(parts[:3]), joined(parts[3:])], 1, 2)
    for name, value in large.items():
        torch.testing.assert_close(small[name], value, atol=1e-5, rtol=0, msg=name)
    assert not torch.equal(
        small["encoder.blocks.0.attn.qkv.weight"], trained(parts[:3], 3, 1)["encoder.blocks.0.attn.qkv.weight"]
    )


def rows(run: Path) -> list[str]:
    return (run / "logs" / "metrics.csv").read_text().splitlines()


def test_a_run_counts_steps_of_the_optimizer_and_resumes_among_gathered_batches(tmp_path: Path, corpus: Path):
    whole = pretrain(describe(tmp_path / "whole", corpus, trainer__accumulate=2))
    assert len(rows(tmp_path / "whole")) == 1 + 6

    part = describe(tmp_path / "part", corpus, trainer__accumulate=2)
    with pytest.raises(KeyboardInterrupt):
        pretrain(part, callbacks=(StopAt(8),))  # in the middle of step 5; the last checkpoint is of step 3
    resumed = pretrain(part, resume=True)
    for name, value in whole.encoder.state_dict().items():
        assert torch.equal(value, resumed.encoder.state_dict()[name]), name


def test_the_log_shows_the_mean_of_the_batches_gathered_for_a_step(tmp_path: Path, corpus: Path):
    told: list[list[float]] = [[]]

    class Listen(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            told[-1].append(3 * outputs["loss"].item())  # Lightning's is a third, of three gathered batches
            if len(told[-1]) == 3:
                told.append([])

    pretrain(describe(tmp_path / "run", corpus, trainer__accumulate=3), callbacks=(Listen(),))
    with (tmp_path / "run" / "logs" / "metrics.csv").open() as file:
        logged = [float(row["train/loss"]) for row in csv.DictReader(file)]
    assert logged == pytest.approx([sum(losses) / 3 for losses in told[:6]], rel=1e-5)
    assert all(abs(losses[-1] - loss) > 1e-4 for losses, loss in zip(told, logged, strict=False)), "not the last alone"


def test_weight_decay_follows_its_schedule_where_there_is_any(tmp_path: Path, corpus: Path):
    seen = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            seen.append([group["weight_decay"] for group in trainer.optimizers[0].param_groups])

    settings = {"lr": 1e-3, "weight_decay": 0.04, "final_weight_decay": 0.4}
    pretrain(describe(tmp_path / "run", corpus, optimizer=settings), callbacks=(Look(),))
    expected = [half_cosine(0.04, 0.4, 6)(step) for step in range(6)]
    assert [pair[0] for pair in seen] == pytest.approx(expected) and expected[3] == pytest.approx(0.22)
    assert all(pair[1] == 0 for pair in seen)


def test_a_cooldown_starts_from_weights_and_optimizer_at_more_frames_and_pixels(tmp_path: Path, corpus: Path):
    pretrain(describe(tmp_path / "first", corpus))
    larger = {"init_from": str(tmp_path / "first"), "data__clip_frames": 8, "data__image_size": 24}
    config = describe(
        tmp_path / "second", corpus, **larger, schedule={"kind": "linear"}, optimizer={"lr": 1e-4, "weight_decay": 0.0}
    )
    begun: dict[str, Any] = {}

    class Begin(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                begun["weights"] = {name: x.clone() for name, x in module.method.state_dict().items()}
                optimizer = trainer.optimizers[0]
                begun["steps"] = {int(state["step"]) for state in optimizer.state.values()}
                begun["groups"] = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]

    pretrain(config, callbacks=(Begin(),))
    found = torch.load(tmp_path / "first" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert begun["weights"].keys() == {name.removeprefix("method.") for name in found}
    assert all(torch.equal(begun["weights"][name.removeprefix("method.")], x) for name, x in found.items())
    assert begun["steps"] == {6}  # of Adam: the moments were taken over
    assert begun["groups"] == [(1e-4, 0.0), (1e-4, 0.0)]  # the rates are its own


def test_a_cooldown_that_was_killed_resumes_from_its_own_checkpoint(tmp_path: Path, corpus: Path):
    pretrain(describe(tmp_path / "first", corpus))
    config = describe(tmp_path / "second", corpus, init_from=str(tmp_path / "first"))
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, callbacks=(StopAt(4),))  # the last checkpoint is of step 3
    resumed = pretrain(config, resume=True)
    whole = pretrain(config.model_copy(update={"run": str(tmp_path / "whole")}))
    for name, value in whole.encoder.state_dict().items():
        assert torch.equal(value, resumed.encoder.state_dict()[name]), name


def test_another_model_a_missing_run_and_a_cut_checkpoint_are_reported(tmp_path: Path, corpus: Path):
    pretrain(describe(tmp_path / "first", corpus))
    method = build_method(describe(tmp_path / "x", corpus, encoder__depth=2), 16, 0)
    assert isinstance(method, nn.Module)
    with pytest.raises(UserError, match=r"belongs to another model: missing encoder\.blocks\.1"):
        start_from(str(tmp_path / "first"), method)
    with pytest.raises(UserError, match=r"init_from: .*does not exist"):
        start_from(str(tmp_path / "nowhere"), method)
    whole = (tmp_path / "first" / "checkpoints" / "last.ckpt").read_bytes()
    for size in (0, 100, len(whole) // 2):
        (tmp_path / "cut.ckpt").write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cut\.ckpt: damaged"):
            start_from(str(tmp_path / "cut.ckpt"), method)
    torch.save({"something": 1}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="no checkpoint of `jepa pretrain`"):
        start_from(str(tmp_path / "other.ckpt"), method)


def test_bf16_trains_and_the_teacher_stays_in_fp32(tmp_path: Path, corpus: Path):
    types: dict[str, set[torch.dtype]] = {}

    class Look(L.Callback):
        def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
            types["teacher"] = {p.dtype for p in module.method.target_encoder.parameters()}
            types["student"] = {p.dtype for p in module.method.encoder.parameters()}
            types["loss"] = {trainer.callback_metrics["train/loss"].dtype}
            assert trainer.callback_metrics["train/loss"].isfinite()

    pretrain(describe(tmp_path / "run", corpus, trainer__precision="bf16", trainer__steps=2), callbacks=(Look(),))
    assert types == {"teacher": {torch.float32}, "student": {torch.float32}, "loss": {torch.float32}}
