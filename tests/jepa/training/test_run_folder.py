"""Nobody's work is lost in a run folder: failed starts, foreign files, Slurm's requeueing, folders of demos."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

import jepa
import jepa.cli.demos as demos
from jepa.cli import main
from jepa.cli.demos import check_free, folder_of
from jepa.config import UserError, from_dict
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain


def describe(run: Path, corpus: Path, steps: int = 2, **changes: Any) -> PretrainConfig:
    description = {
        "run": str(run),
        "data": {"shards": str(corpus), "batch_size": 4, "clip_frames": 8},
        "encoder": {"kind": "conv", "width": 8, "channels": 8, "hidden": 32},
        "method": {"kind": "lewm", "directions": 16, "predictor": {"hidden": 32}},
        "trainer": {"steps": steps, "log_every": 1, "monitor_every": 100, "device": "cpu"},
    }
    return from_dict(description, PretrainConfig, [f"{key.replace('__', '.')}={x}" for key, x in changes.items()])


class Fail(Callback):
    """A first batch that does not fit into memory."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    "wrong",
    [
        {"data__shards": "nowhere"},
        {"data__clip_frames": 7},
        {"data__clip_frames": 40},
        {"encoder": "{kind: video_vit, patch: 7}"},
        {"trainer__probe_every": 1, "trainer__probe": "knn", "data__fps": 1000},
    ],
)
def test_the_corrected_command_works_in_the_folder_of_a_start_that_failed(
    wrong: dict[str, Any], corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError):
        jepa.pretrain(describe(run, corpus, **wrong))
    assert not run.exists()


def test_a_start_that_fails_in_its_first_batch_gives_the_folder_back(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "data").mkdir(parents=True)  # as the demo has it
    with pytest.raises(RuntimeError, match="out of memory"):
        pretrain(describe(run, corpus), callbacks=(Fail(),))
    assert [path.name for path in run.iterdir()] == ["data"]
    pretrain(describe(run, corpus))
    config = (run / "config.yaml").read_text()
    with pytest.raises(RuntimeError, match="out of memory"):
        pretrain(describe(run, corpus, steps=3), resume=True, callbacks=(Fail(),))
    assert (run / "config.yaml").read_text() == config


def test_a_start_that_would_fail_leaves_the_run_that_it_was_to_overwrite(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(describe(run, corpus))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="no such folder"):
        pretrain(describe(run, corpus, data__shards="nowhere"), overwrite=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_an_overwritten_run_leaves_no_results_of_the_model_before(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(describe(run, corpus))
    (run / "model" / "pixels").mkdir()
    for name in ("probe.json", "notes.txt", "model/pixels/decoder"):
        (run / name).write_text("of the model before")
    pretrain(describe(run, corpus), overwrite=True)
    assert not (run / "probe.json").exists() and not (run / "model" / "pixels").exists()
    assert (run / "notes.txt").exists() and (run / "model" / "model.json").exists()


@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", "logs/metrics.csv", "model/weights.bin", "probe.json"])
def test_a_folder_with_somebodys_files_is_refused_and_they_are_named(name: str, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "project"
    (run / name).parent.mkdir(parents=True)
    (run / name).write_text("weeks of work")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=f"not the folder of a run.*{name.split('/')[0]}.*move them away"):
            pretrain(describe(run, corpus), overwrite=overwrite)
    assert (run / name).read_text() == "weeks of work" and not (run / "config.yaml").exists()


def test_overwriting_a_run_writes_through_no_link(corpus: Path, tmp_path: Path) -> None:
    run, foreign = tmp_path / "run", tmp_path / "foreign"
    pretrain(describe(run, corpus))
    for name in ("logs", "model", "checkpoints"):
        shutil.rmtree(run / name)
        (foreign / name).mkdir(parents=True)
        (run / name).symlink_to(foreign / name)
    for name in ("logs/metrics.csv", "model/model.json", "checkpoints/last.ckpt", "config.yaml", "pretrain.json"):
        (foreign / name).write_text("not ours")
    for name in ("config.yaml", "pretrain.json"):
        (foreign / name).write_text((run / name).read_text())
        (run / name).unlink()
        (run / name).symlink_to(foreign / name)
    before = {path: path.read_text() for path in foreign.rglob("*") if path.is_file()}
    pretrain(describe(run, corpus, steps=3), overwrite=True)
    assert {path: path.read_text() for path in foreign.rglob("*") if path.is_file()} == before
    assert not any(path.is_symlink() for path in run.rglob("*"))


def test_a_folder_with_data_and_notes_may_become_a_run(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("data/manifest.json", "log.txt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("kept")
    pretrain(describe(run, corpus))
    assert (run / "log.txt").read_text() == (run / "data/manifest.json").read_text() == "kept"


def test_a_run_under_slurm_does_not_begin_from_what_another_run_left_in_the_working_directory(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, slurm = tmp_path / "plain", tmp_path / "slurm"
    pretrain(describe(plain, corpus))
    pretrain(describe(tmp_path / "other", corpus, seed=7))
    other = (tmp_path / "other" / "checkpoints" / "last.ckpt").read_bytes()
    monkeypatch.chdir(tmp_path)
    Path("hpc_ckpt_1.ckpt").write_bytes(other)
    slurm.mkdir()
    (slurm / "hpc_ckpt_1.ckpt").write_bytes(other)
    job = {"JOB_ID": "123456", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    pretrain(describe(slurm, corpus))
    a, b = (load_file(run / "model" / "model.safetensors") for run in (plain, slurm))
    assert all(torch.allclose(a[name], b[name]) for name in a)
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["hpc_ckpt_1.ckpt"]


@pytest.mark.parametrize("name", ["last", "step-4"])
def test_a_checkpoint_that_cannot_be_written_stops_the_run_and_leaves_the_one_before(
    name: str, corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    class Block(Callback):
        """Stands for a disk that is full or may not be written: a folder lies where the next file would."""

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                (run / "checkpoints" / f"{name}.ckpt.partial").mkdir()

    config = describe(run, corpus, steps=6, trainer__checkpoint_every=2)
    with pytest.raises(UserError, match=rf"{name}\.ckpt: the checkpoint could not be written.*--resume"):
        pretrain(config, callbacks=(Block(),))
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    pretrain(config, resume=True)


def test_each_demo_has_a_folder_of_its_own() -> None:
    assert folder_of("lewm", 0) == Path("runs/demo")
    assert folder_of("two-rooms", 0) == Path("runs/demo-two-rooms")
    assert folder_of("lewm", 3) == Path("runs/demo-lewm-3")
    assert folder_of("vjepa", 1, several=True) == Path("runs/demo-vjepa-1")
    assert folder_of("vjepa", 1, Path("a/b")) == Path("a/b")
    names = [(method, seed) for method in demos.DEMOS for seed in (0, 1)]
    assert len({folder_of(*name) for name in names}) == len(names)


def test_a_demo_deletes_no_other_one_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "demo-two-rooms", "demo-vjepa-1"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "demo.json").write_text('{"method": "lewm", "seed": 0}')
        (tmp_path / "runs" / name / "model").write_text("kept")
    for words in ([], ["--methods", "two-rooms"], ["--methods", "levjepa,vjepa", "--seeds", "0,1"]):
        with pytest.raises(SystemExit) as ended:
            main(["demo", *words])
        told = capsys.readouterr().err
        assert ended.value.code == 2 and "already holds a demo (method lewm, seed 0)" in told and "--overwrite" in told
    assert len(list(tmp_path.glob("runs/*/model"))) == 3 and len(list(tmp_path.glob("runs/*"))) == 3
    check_free(tmp_path / "runs" / "demo", overwrite=True)
    (tmp_path / "runs" / "mine").mkdir()
    (tmp_path / "runs" / "mine" / "thesis.tex").write_text("kept")
    with pytest.raises(UserError, match="is no demo"):
        check_free(tmp_path / "runs" / "mine", overwrite=True)


def test_a_demo_whose_world_cannot_be_recorded_gives_its_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise UserError("push-t needs pymunk")

    monkeypatch.setattr(demos, "record", missing)
    with pytest.raises(UserError, match="pymunk"):
        demos.demo(tmp_path / "demo", method="push-t")
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    "command",
    [
        "pretrain {config} run={closed}/run",
        "curves {run} --out {closed}/curves.png",
        "demo --run {closed}/demo",
        "export {run} --to openjepa --out {closed}/model",
        "export {run} --to onnx --out {closed}/model.onnx",
        "plan {closed}",
        "data record billiards-easy {closed}/data --episodes 2 --frames 4 --image-size 32",
    ],
)
def test_where_nothing_can_be_written_is_one_line_with_path_and_reason(
    command: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The closed place is a file, in which nobody can make a folder: root, who runs tests, may write anywhere else."""
    closed, run = tmp_path / "closed", tmp_path / "run"
    closed.write_text("")
    (run / "logs").mkdir(parents=True)
    (run / "logs" / "metrics.csv").write_text("step,train/loss\n0,1.0\n1,0.5\n")
    config = tmp_path / "c.yaml"
    config.write_text(
        f"run: x\ndata: {{shards: {corpus}, batch_size: 4, clip_frames: 8}}\nencoder: {{kind: conv}}\n"
        "method: {kind: lewm}\ntrainer: {steps: 1, device: cpu}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(command.format(config=config, closed=closed, run=run).split())
    told = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(told) == 1 and str(closed) in told[0], told


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused_before_training(corpus: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"nothing can be written.*Permission denied"):
        pretrain(describe(tmp_path / "run", corpus))
