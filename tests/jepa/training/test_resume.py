"""`jepa pretrain --resume`: more steps are trained, what cannot be honoured is refused, damage is named."""

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jepa.cli import main
from jepa.config import UserError, from_dict
from jepa.config import load as load_config
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa.training.run_state.checkpoint_file import PARTS, read_checkpoint, write_checkpoint
from jepa.training.run_state.metrics_log import read_rows
from jepa_data.shards.index import ShardSet
from jepa_data.sources.rollouts import Recording, record

BASE: dict[str, Any] = {
    "encoder": {"kind": "conv", "width": 8, "channels": 8, "hidden": 32},
    "method": {"kind": "lewm", "directions": 16, "predictor": {"hidden": 32}},
}
FLAT = {"kind": "flat"}


def describe(run: Path, corpus: Path, steps: int = 4, every: int = 500, **changes: Any) -> PretrainConfig:
    data = {"shards": str(corpus), "batch_size": 4, "clip_frames": 8} | changes.pop("data", {})
    trainer = {"steps": steps, "checkpoint_every": every, "log_every": 1, "monitor_every": 100, "device": "cpu"}
    trainer |= changes.pop("trainer", {})
    return from_dict(BASE | {"run": str(run), "data": data, "trainer": trainer} | changes, PretrainConfig)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.allclose(first[n], second[n], atol=1e-6) for n in first)


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 steps; not to be changed."""
    run = tmp_path_factory.mktemp("done") / "run"
    pretrain(describe(run, corpus))
    return run


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    copy = tmp_path / "run"
    for path in done.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(done)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return copy


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize("every", [2, 3, 500])
def test_a_finished_run_resumed_with_more_steps_ends_as_one_that_was_as_long_from_the_start(
    every: int, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    pretrain(describe(whole, corpus, 8, schedule=FLAT))
    pretrain(describe(longer, corpus, 4, every, schedule=FLAT))
    pretrain(describe(longer, corpus, 8, every, schedule=FLAT), resume=True)
    assert same(whole, longer)
    assert load_config(longer / "config.yaml", PretrainConfig).trainer.steps == 8
    assert any("trainer.steps 4 -> 8" in line for line in caplog.messages)
    assert torch.load(longer / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8


def test_the_schedule_of_a_run_that_got_longer_is_that_of_its_new_length(
    run: Path, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rates = Rates()
    pretrain(describe(run, corpus, 8), resume=True, callbacks=(rates,))
    half_cosine = [1e-3 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 8)).item()) for step in range(4, 8)]
    assert rates.seen == pytest.approx(half_cosine, rel=1e-5)
    assert any("the learning rate goes from 0 to 0.0005" in line for line in caplog.messages)


def test_a_run_stopped_midway_goes_on_for_as_many_steps_as_are_asked_for_now(corpus: Path, tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 3:
                raise KeyboardInterrupt

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    pretrain(describe(whole, corpus, 7, schedule=FLAT))
    with pytest.raises(KeyboardInterrupt):
        pretrain(describe(stopped, corpus, 5, 2, schedule=FLAT), callbacks=(Stop(),))
    pretrain(describe(stopped, corpus, 7, 2, schedule=FLAT), resume=True)
    assert same(whole, stopped)
    assert load_config(stopped / "config.yaml", PretrainConfig).trainer.steps == 7


def test_resuming_a_finished_run_says_that_nothing_is_left_and_leaves_it_as_it_is(
    run: Path, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    caplog.clear()  # of what made the run
    pretrain(describe(run, corpus), resume=True)
    assert len(caplog.messages) == 1 and "all 4 steps are done" in caplog.messages[0]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_that_was_killed_before_its_model_was_written_writes_it_when_resumed(
    done: Path, run: Path, corpus: Path
) -> None:
    (run / "model" / "model.json").unlink()
    pretrain(describe(run, corpus), resume=True)
    assert same(done, run)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("trainer.steps is 2, was 4", {"steps": 2}),
        ("optimizer.lr is 0.01, was 0.001", {"optimizer": {"lr": 0.01}}),
        ("schedule.kind is flat, was cosine", {"schedule": FLAT}),
        ("trainer.accumulate is 2, was 1", {"trainer": {"accumulate": 2}}),
        ("trainer.clip_norm is none, was 1.0", {"trainer": {"clip_norm": None}}),
        ("data.batch_size is 8, was 4", {"data": {"batch_size": 8}}),
        ("init_from is elsewhere, was none", {"init_from": "elsewhere"}),
        ("encoder.width is 16, was 8", {"encoder": BASE["encoder"] | {"width": 16}}),
    ],
)
def test_what_cannot_be_honoured_by_a_resumed_run_is_refused_by_name(
    key: str, changes: dict[str, Any], run: Path, corpus: Path
) -> None:
    before = (run / "config.yaml").read_text()
    with pytest.raises(UserError, match=key) as caught:
        pretrain(describe(run, corpus, **changes), resume=True)
    assert "init_from=" in str(caught.value)
    assert (run / "config.yaml").read_text() == before


def test_workers_intervals_and_the_device_may_change_and_stand_in_the_config_afterwards(
    run: Path, corpus: Path
) -> None:
    changes = {"trainer": {"log_every": 2, "device": "auto", "precision": "fp32"}, "data": {"cache_mib": 8}}
    config = describe(run, corpus, 6, 2, **changes)
    pretrain(config, resume=True)
    written = load_config(run / "config.yaml", PretrainConfig)
    assert written.trainer == config.trainer and written.data.cache_mib == 8


def test_resuming_what_is_no_run_says_how_to_begin(corpus: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing to resume.*without --resume"):
        pretrain(describe(tmp_path / "none", corpus), resume=True)


def test_a_run_that_was_killed_before_its_first_checkpoint_goes_on_with_resume(
    done: Path, run: Path, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "model")
    pretrain(describe(run, corpus), resume=True)
    assert any("no checkpoint yet; the run begins at its first step" in line for line in caplog.messages)
    assert same(done, run)


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "one byte of a weight is another":
        part = data.find(b"PK\x03\x04", len(data) // 2)
        data[part + 300] ^= 0x55
    sizes = {"empty": 0, "cut": len(data) // 2, "cut at its end": len(data) - 1}
    text = b"not a checkpoint" if how == "text" else bytes(data[: sizes.get(how, len(data))])
    path.write_bytes(text)


HOW = ["empty", "cut", "cut at its end", "one byte of a weight is another", "text"]


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps that was not interrupted."""
    path = tmp_path_factory.mktemp("whole") / "run"
    pretrain(describe(path, corpus, 6, schedule=FLAT))
    return path


@pytest.mark.parametrize("how", HOW)
def test_in_place_of_a_damaged_checkpoint_the_one_before_is_used_and_the_run_ends_with_the_same_weights(
    how: str, whole: Path, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    pretrain(describe(run, corpus, 4, 2, schedule=FLAT))
    damage(run / "checkpoints" / "last.ckpt", how)  # another name of step-4.ckpt
    pretrain(describe(run, corpus, 6, 2, schedule=FLAT), resume=True)
    notes = [line for line in caplog.messages if "going on from step-2.ckpt" in line]
    assert len(notes) == 1 and f"{run / 'checkpoints' / 'last.ckpt'}: damaged" in notes[0]
    assert same(whole, run)


@pytest.mark.parametrize("how", HOW)
def test_where_no_checkpoint_is_whole_one_line_names_the_file_and_what_to_do(
    how: str, run: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (run / "checkpoints").iterdir():
        damage(path, how)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(run / "config.yaml"), f"run={run}", "--resume", "trainer.steps=5"])
    told = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(told) == 1
    assert f"{run / 'checkpoints' / 'last.ckpt'}: damaged" in told[0] and "start again with --overwrite" in told[0]
    assert load_config(run / "config.yaml", PretrainConfig).trainer.steps == 4
    with pytest.raises(UserError, match=r"init_from: .*last\.ckpt: damaged"):
        pretrain(describe(tmp_path / "other", corpus, init_from=str(run)))


def test_every_flipped_byte_and_every_cut_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "step-1.ckpt"
    written = {part: {} for part in PARTS} | {"state_dict": {"w": torch.arange(40.0)}, "global_step": 1}
    write_checkpoint(written, path)
    assert torch.equal(read_checkpoint(path)["state_dict"]["w"], torch.arange(40.0))
    assert torch.equal(read_checkpoint(path, mmap=True)["state_dict"]["w"], torch.arange(40.0))
    data = path.read_bytes()
    for place in [*range(0, len(data), 23), *range(len(data) - 80, len(data))]:
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        with pytest.raises(UserError, match=r"step-1\.ckpt: damaged"):
            read_checkpoint(path)
    for length in range(0, len(data), 31):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"step-1\.ckpt: damaged"):
            read_checkpoint(path)


def test_a_checkpoint_of_a_version_that_wrote_no_sum_is_read(run: Path, corpus: Path) -> None:
    for path in (run / "checkpoints").iterdir():
        torch.save(torch.load(path, weights_only=True), path)
    pretrain(describe(run, corpus, 5), resume=True)


@pytest.mark.parametrize("kind", ["no training", "another model"])
def test_a_checkpoint_of_something_else_is_named(
    kind: str, run: Path, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = run / "checkpoints" / "last.ckpt"
    found = torch.load(path, weights_only=True)
    if kind == "no training":
        del found["optimizer_states"]
        torch.save(found, path)
        pretrain(describe(run, corpus, 5), resume=True)
        assert any("last.ckpt" in line and "holds no optimizer_states" in line for line in caplog.messages)
        return
    found["state_dict"]["method.encoder.convs.0.weight"] = torch.zeros(1)
    torch.save(found, path)
    with pytest.raises(UserError, match=r"last\.ckpt.*belongs to another model"):
        pretrain(describe(run, corpus, 5), resume=True)


def test_a_run_that_was_copied_goes_on_in_its_own_folder(done: Path, run: Path, corpus: Path) -> None:
    before = sorted(path.name for path in (done / "checkpoints").iterdir())
    pretrain(describe(run, corpus, 6, 2), resume=True)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["last.ckpt", "step-4.ckpt", "step-6.ckpt"]
    assert sorted(path.name for path in (done / "checkpoints").iterdir()) == before


def test_shards_that_have_changed_are_noticed_when_a_run_is_resumed(run: Path, corpus: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(corpus, moved)
    path = run / "config.yaml"
    path.write_text(path.read_text().replace(str(corpus), str(moved)))
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    record(Recording("billiards-easy", episodes=20, frames=14, image_size=32), moved, overwrite=True)
    with pytest.raises(UserError, match="these shards have changed since the state was saved"):
        pretrain(describe(run, moved, steps=6), resume=True)
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before
    shutil.rmtree(moved)
    shutil.copytree(corpus, moved)  # the same shards elsewhere
    pretrain(describe(run, moved, steps=6), resume=True)


def test_a_checkpoint_with_numbers_that_are_not_finite_is_named_and_not_used(
    run: Path, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = run / "checkpoints" / "last.ckpt"
    found = torch.load(path, weights_only=True)
    name = next(name for name, x in found["state_dict"].items() if x.is_floating_point())
    found["state_dict"][name].fill_(torch.nan)
    torch.save(found, path)
    pretrain(describe(run, corpus, steps=6), resume=True)
    assert any(f"last.ckpt: damaged: {name} is not finite" in line for line in caplog.messages)


def test_without_last_ckpt_a_run_goes_on_from_the_newest_step(
    run: Path, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run / "checkpoints" / "last.ckpt").unlink()
    pretrain(describe(run, corpus, steps=6), resume=True)
    assert any("last.ckpt is not there: going on from step-4.ckpt" in line for line in caplog.messages)
    assert not any("changed" in line for line in caplog.messages), "but the number of steps, nothing has"


def test_as_many_checkpoints_are_kept_as_are_asked_for(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    pretrain(describe(tmp_path / "run", corpus, 5, 1, trainer={"keep_last": 3}))
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", *(f"step-{n}.ckpt" for n in (3, 4, 5))]
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 5


def test_what_changes_and_may_is_told(
    run: Path, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(corpus, moved)
    data = {"shards": str(moved), "workers": 1, "worker_kind": "thread", "stall_seconds": 60.0}
    pretrain(describe(run, moved, 5, data=data, trainer={"keep_last": 1}), resume=True)
    told = next(line for line in caplog.messages if line.startswith("changed: "))
    for change in (f"data.shards {corpus} -> {moved}", "data.workers 0 -> 1", "trainer.keep_last 2 -> 1"):
        assert change in told


def test_a_list_of_left_out_samples_may_move_and_not_change(run: Path, corpus: Path, tmp_path: Path) -> None:
    key = next(iter(ShardSet.open(str(corpus)).split("train"))).key
    first, second, other = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl"))
    for path in (first, second):
        path.write_text(f'{{"key": "{key}", "shard": "train-000000.tar"}}\n')
    other.write_text("")
    pretrain(describe(tmp_path / "skips", corpus, data={"skip": str(first)}))
    pretrain(describe(tmp_path / "skips", corpus, 5, data={"skip": str(second)}), resume=True)
    with pytest.raises(UserError, match="other samples are left out"):
        pretrain(describe(tmp_path / "skips", corpus, 6, data={"skip": str(other)}), resume=True)


def test_metrics_of_all_parts_stay_while_a_run_is_killed_and_resumed_twice(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    table = run / "logs" / "metrics.csv"

    class Kill(Callback):
        """As kill -9: nothing is tidied up after it."""

        def __init__(self, step: int) -> None:
            self.step = step

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == self.step:
                shutil.copyfile(table, tmp_path / "left.csv")
                raise RuntimeError("killed")

    for step in (3, 6):
        with pytest.raises(RuntimeError, match="killed"):
            pretrain(describe(run, corpus, 8, 2), resume=step > 3, callbacks=(Kill(step),))
        shutil.copyfile(tmp_path / "left.csv", table)
        assert [int(row["step"]) for row in read_rows(table)] == list(range(step))
    with table.open("a") as file:
        file.write("6,0.3")  # cut off in the middle of a row
    pretrain(describe(run, corpus, 8, 2), resume=True)
    rows = read_rows(table)
    assert [int(row["step"]) for row in rows] == list(range(8)) and all(float(row["train/loss"]) for row in rows)


def test_the_rows_of_all_steps_are_written_before_their_checkpoint(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a kill right after it loses none; each step is logged once all the same."""
    table = tmp_path / "run" / "logs" / "metrics.csv"
    written = dict[int, list[int]]()

    def save(trainer: Any, path: Path) -> None:
        written[trainer.global_step] = [int(row["step"]) for row in read_rows(table)]

    monkeypatch.setattr("lightning.Trainer.save_checkpoint", save)
    monkeypatch.setattr("jepa.training.run_state.checkpoints._name_last", lambda path: None)
    pretrain(describe(tmp_path / "run", corpus, 6, 2))
    assert written == {2: [0, 1], 4: [0, 1, 2, 3], 6: [0, 1, 2, 3, 4, 5]}
    assert [int(row["step"]) for row in read_rows(table)] == list(range(6))
    events = EventAccumulator(str(tmp_path / "run" / "logs")).Reload().Scalars("train/loss")
    assert [event.step for event in events] == list(range(6))


def test_events_that_do_not_fit_on_the_disk_are_one_error(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """TensorBoard's thread writes them, and the training learns of it by the next write."""

    def full(writer: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.flush", full)
    with pytest.raises(OSError, match="No space left"):
        pretrain(describe(tmp_path / "run", corpus))
    assert "Traceback" not in capfd.readouterr().err
