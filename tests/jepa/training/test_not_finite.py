"""A gradient or a weight that is not finite is neither applied nor saved."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from jepa.config import UserError, from_dict
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain

NAME = "encoder.patch_embed.proj.weight"


def describe(run: Path, corpus: Path, *changes: str) -> PretrainConfig:
    description = {
        "run": str(run),
        "data": {"shards": str(corpus), "batch_size": 4, "clip_frames": 8},
        "encoder": {"kind": "video_vit", "patch": 8, "width": 24, "depth": 1, "heads": 2},
        "method": {"kind": "vjepa", "ema": [0.5, 0.5], "predictor": {"width": 24, "depth": 1, "heads": 2}},
        "trainer": {"steps": 6, "checkpoint_every": 1, "log_every": 1, "monitor_every": 100, "device": "cpu"},
    }
    return from_dict(description, PretrainConfig, changes)


class Spoil(Callback):
    """Makes one gradient not finite in the fourth step, with a finite loss."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.before: dict[str, torch.Tensor] = {}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.global_step == 3:
            self.method = pl_module.method
            self.before = {name: x.clone() for name, x in self.method.state_dict().items()}
            self.method.get_parameter(NAME).grad[0] = self.value


@pytest.mark.parametrize("clip", ["1.0", "null"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_the_run_before_weights_teacher_and_checkpoint(
    value: float, clip: str, corpus: Path, tmp_path: Path
) -> None:
    run, spoil = tmp_path / "run", Spoil(value)
    with pytest.raises(UserError, match=f"the gradient of {NAME} is not finite at step 3") as caught:
        pretrain(describe(run, corpus, f"trainer.clip_norm={clip}"), callbacks=(spoil,))
    assert "\n" not in str(caught.value)
    after = spoil.method.state_dict()
    assert all(torch.equal(after[name], x) for name, x in spoil.before.items()), "weights and teacher are untouched"
    for path in (run / "checkpoints").iterdir():
        found = torch.load(path, weights_only=True)
        assert found["global_step"] == 3 and all(x.isfinite().all() for x in found["state_dict"].values())
    assert not (run / "model").exists()


def test_a_gradient_too_large_for_its_norm_is_not_clipped_to_nothing(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the norm of the gradients is not finite at step 3"):
        pretrain(describe(tmp_path / "run", corpus), callbacks=(Spoil(1e30),))


def test_weights_that_are_not_finite_do_not_replace_the_last_checkpoint(corpus: Path, tmp_path: Path) -> None:
    class Overflow(Callback):
        """A weight overflows in the fourth step, as with a far too large learning rate."""

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 3:
                pl_module.method.get_parameter(NAME).data[0] = torch.inf

    run = tmp_path / "run"
    with pytest.raises(UserError, match=rf"checkpoint of step 4 is not written: method\.{NAME} is not finite"):
        pretrain(describe(run, corpus), callbacks=(Overflow(),))
    found = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert found["global_step"] == 3 and (run / "checkpoints" / "step-3.ckpt").is_file()
    pretrain(describe(run, corpus), resume=True)
