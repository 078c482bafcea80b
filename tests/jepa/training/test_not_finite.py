"""A gradient or a weight that is not finite is neither applied nor saved."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from jepa.config import UserError, from_dict
from jepa.training.config import OptimizerConfig, PretrainConfig
from jepa.training.optim import hears_later, optimizer_of
from jepa.training.pretrain import pretrain
from jepa.training.run_state.metrics_log import read_rows

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


@pytest.fixture(params=[False, True], ids=["at once", "later"])
def later(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the program hears of a refused step one step later, as on a GPU."""
    monkeypatch.setattr("jepa.training.module.hears_later", lambda device, optimizer: request.param)
    return request.param


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
    value: float, clip: str, later: bool, corpus: Path, tmp_path: Path
) -> None:
    run, spoil = tmp_path / "run", Spoil(value)
    what = "norm of the gradients" if later else f"gradient of {NAME}"
    with pytest.raises(UserError, match=f"the {what} is not finite at step 3") as caught:
        pretrain(describe(run, corpus, f"trainer.clip_norm={clip}"), callbacks=(spoil,))
    assert "\n" not in str(caught.value)
    after = spoil.method.state_dict()
    assert all(torch.equal(after[name], x) for name, x in spoil.before.items()), "weights and teacher are untouched"
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    for path in (run / "checkpoints").iterdir():
        assert all(x.isfinite().all() for x in torch.load(path, weights_only=True)["state_dict"].values())
    assert not (run / "model").exists()


@pytest.mark.usefixtures("later")
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


class Bad(Callback):
    """Some batches have pixels of NaN: BatchNorm's statistics see them in the forward pass, and the loss is NaN."""

    def __init__(self, *batches: int) -> None:
        self.batches = batches
        self.states = list[dict[str, torch.Tensor]]()
        self.moments = list[torch.Tensor]()
        self.keys = dict[int, tuple[str, ...]]()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.keys[batch_idx] = batch.keys

        def inputs(clips: Any) -> Any:
            made = type(pl_module)._inputs(pl_module, clips)
            return replace(made, video=made.video * torch.nan) if batch_idx in self.batches else made

        pl_module._inputs = inputs

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.states.append({name: x.clone() for name, x in pl_module.method.state_dict().items()})
        moments = trainer.optimizers[0].state_dict()["state"]
        self.moments.append(
            torch.cat([torch.zeros(1), *(x.flatten() for state in moments.values() for x in state.values())])
        )


BATCH_NORM = (
    "encoder={kind: conv, width: 8, channels: 8, hidden: 32}",
    "method={kind: lewm, directions: 16, predictor: {hidden: 32}}",
)


@pytest.mark.usefixtures("later")
def test_a_step_that_is_skipped_changes_no_weight_no_statistic_and_no_moment_and_is_counted(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, bad = tmp_path / "run", Bad(2, 4)
    pretrain(describe(run, corpus, *BATCH_NORM, "trainer.not_finite=skip"), callbacks=(bad,))
    assert any("norm.running_mean" in name for name in bad.states[0])
    for batch in range(1, 6):
        before, after = bad.states[batch - 1], bad.states[batch]
        changed = [name for name, x in after.items() if not torch.equal(x, before[name])]
        same = torch.equal(bad.moments[batch], bad.moments[batch - 1])
        assert (not changed and same) if batch in bad.batches else (changed and not same)
    assert json.loads((run / "pretrain.json").read_text())["skipped_steps"] == 2
    assert any("the loss is nan at step 2; the step is left out" in line for line in caplog.messages)


@pytest.mark.usefixtures("later")
def test_with_a_teacher_a_skipped_step_leaves_it_where_it_was(corpus: Path, tmp_path: Path) -> None:
    spoil, seen = Spoil(float("inf")), Bad()
    pretrain(describe(tmp_path / "run", corpus, "trainer.not_finite=skip"), callbacks=(spoil, seen))
    assert all(torch.equal(x, seen.states[3][name]) for name, x in spoil.before.items())
    assert any(not torch.equal(x, seen.states[4][name]) for name, x in spoil.before.items())


@pytest.mark.usefixtures("later")
def test_too_many_skipped_steps_in_a_row_end_the_run(corpus: Path, tmp_path: Path) -> None:
    settings = ("trainer.not_finite=skip", "trainer.not_finite_limit=2")
    pretrain(describe(tmp_path / "spread", corpus, *BATCH_NORM, *settings), callbacks=(Bad(0, 1, 3, 4),))
    with pytest.raises(UserError, match="the loss is nan at step 4, after 2 steps in a row"):
        pretrain(describe(tmp_path / "row", corpus, *BATCH_NORM, *settings), callbacks=(Bad(2, 3, 4),))


@pytest.mark.usefixtures("later")
def test_one_bad_batch_of_several_whose_gradients_are_averaged_refuses_the_step(corpus: Path, tmp_path: Path) -> None:
    bad = Bad(2)
    settings = (*BATCH_NORM, "trainer.not_finite=skip", "trainer.accumulate=2", "trainer.steps=3")
    pretrain(describe(tmp_path / "run", corpus, *settings), callbacks=(bad,))
    assert all(torch.equal(x, bad.states[1][name]) for name, x in bad.states[3].items())
    assert any(not torch.equal(x, bad.states[3][name]) for name, x in bad.states[5].items())


def test_a_run_rolls_back_to_its_checkpoint_and_goes_on_with_other_clips(
    later: bool, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done, failed = list[tuple[int, tuple[str, ...]]](), list[tuple[str, ...]]()

    class Once(Bad):
        """Bad in the first attempt alone."""

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            done.append((batch_idx, batch.keys))

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            failed.append(self.keys[3])
            self.batches = ()

    run = tmp_path / "run"
    settings = ("trainer.not_finite=roll_back", "trainer.checkpoint_every=2", "trainer.steps=6")
    pretrain(describe(run, corpus, *BATCH_NORM, *settings), callbacks=(Once(3),))
    again = done[4 if later else 3 :]
    assert [batch for batch, _ in done] == [0, 1, 2, *([3] if later else []), 2, 3, 4, 5]
    assert done[2][1] != again[0][1] and failed[0] != again[1][1], "other clips than those that failed"
    assert json.loads((run / "pretrain.json").read_text())["rollbacks"] == 1
    assert any("Rolled back to step 2" in line for line in caplog.messages)
    assert [int(row["step"]) for row in read_rows(run / "logs" / "metrics.csv")] == [0, 1, 2, 3, 4, 5]


def test_a_training_of_finite_steps_has_the_same_weights_at_once_and_later(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = list[dict[str, torch.Tensor]]()
    for later in (False, True):
        monkeypatch.setattr("jepa.training.module.hears_later", lambda device, optimizer, later=later: later)
        seen = Bad()
        pretrain(describe(tmp_path / str(later), corpus), callbacks=(seen,))
        final.append(seen.states[-1])
    for name, x in final[0].items():
        torch.testing.assert_close(final[1][name], x, rtol=1e-6, atol=1e-7)


def test_only_optimizers_that_can_leave_out_a_step_are_heard_later() -> None:
    layer = torch.nn.Linear(2, 2)
    made = {kind: optimizer_of(OptimizerConfig(kind=kind))(layer) for kind in ("adamw", "laprop", "muon")}
    assert {kind for kind, optimizer in made.items() if hears_later(torch.device("cuda"), optimizer)} == {"adamw"}
    assert not hears_later(torch.device("cpu"), made["adamw"])


def test_a_run_that_fails_again_and_again_after_rolling_back_ends(corpus: Path, tmp_path: Path) -> None:
    bad = Bad(3)
    settings = ("trainer.not_finite=roll_back", "trainer.not_finite_limit=2", "trainer.checkpoint_every=2")
    with pytest.raises(UserError, match="the loss is nan at step 3"):
        pretrain(describe(tmp_path / "run", corpus, *BATCH_NORM, *settings), callbacks=(bad,))
    assert len(bad.states) == 3 + 2 * 1, "the steps before the bad one: three, and one of each further attempt"
