"""`jepa pretrain` on real small shards: what it leaves behind, resuming after a kill, collapse, and bad input."""

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

import jepa
from jepa.cli import main
from jepa.config import UserError, from_dict
from jepa.models.model import load
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa_data.shards.encode import encode_mp4
from tests.edited import write_edited

CONV = {"kind": "conv", "width": 8, "channels": 8, "hidden": 32}
VIT = {"kind": "video_vit", "patch": 8, "width": 24, "depth": 1, "heads": 2}
METHODS: dict[str, dict[str, Any]] = {
    "lewm": {"encoder": CONV, "method": {"kind": "lewm", "directions": 16, "predictor": {"hidden": 32}}},
    "lewm causal": {
        "encoder": CONV,
        "method": {
            "kind": "lewm",
            "directions": 16,
            "teacher_forced": True,
            "predictor": {"kind": "causal", "hidden": 24, "depth": 1, "heads": 2, "conditioning": "adaln", "window": 3},
        },
    },
    "lewm hybrid": {
        "encoder": CONV,
        "method": {
            "kind": "lewm",
            "directions": 16,
            "predictor": {"kind": "hybrid", "pattern": "M*-", "hidden": 24, "mamba_heads": 2, "mamba_state": 8},
        },
    },
    "dreamer": {
        "encoder": {"kind": "dreamer_conv", "channels": [4, 8, 8], "tubelet": 2},
        "method": {
            "kind": "dreamer",
            "predict": "nothing",
            "decoder_channels": 8,
            "predictor": {"recurrent_size": 16, "hidden": 16, "blocks": 4, "categoricals": 4, "classes": 4},
        },
    },
    "pldm": {"encoder": CONV, "method": {"kind": "pldm", "predictor": {"kind": "gru"}}},
    "vjepa": {
        "encoder": VIT,
        "method": {"kind": "vjepa", "ema": [0.9, 0.9], "predictor": {"width": 24, "depth": 1, "heads": 2}},
    },
    "levjepa": {
        "encoder": VIT | {"cls_token": True, "attention": "block_causal"},
        "method": {"kind": "levjepa", "local_views": 2, "drop": 0.5, "projector_width": 32, "embedding_width": 8},
    },
}
METHODS_WITHOUT_ACTIONS = {"vjepa", "levjepa"}
RESUMED_SLOWLY = ("vjepa", "levjepa", "pldm", "dreamer", "lewm causal", "lewm hybrid")


def describe(run: Path, corpus: Path, kind: str = "lewm", **changes: Any) -> PretrainConfig:
    description: dict[str, Any] = {
        "run": str(run),
        "data": {"shards": str(corpus), "batch_size": 4, "clip_frames": 8},
        "trainer": {"steps": 12, "log_every": 2, "monitor_every": 4, "checkpoint_every": 5, "device": "cpu"},
        **METHODS[kind],
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        description[part] = {**description[part], name: value} if name else value
    return from_dict(description, PretrainConfig)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_a_model_that_encodes_alike_after_loading(
    method: str, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = pretrain(describe(tmp_path / "run", corpus, method))
    video = torch.randint(0, 256, (2, 8, 3, 32, 32), dtype=torch.uint8)
    again = jepa.load(tmp_path / "run")
    assert torch.equal(model.encode(video), again.encode(video))
    assert again.spec == model.spec and again.preprocessing == model.preprocessing
    assert (again.dynamics is not None) == (method not in METHODS_WITHOUT_ACTIONS)
    summary = json.loads((tmp_path / "run" / "pretrain.json").read_text())
    assert summary["steps"] == 12 and summary["method"] == method.split()[0] and summary["effective_rank"] > 1
    with (tmp_path / "run" / "logs" / "metrics.csv").open() as file:
        names = csv.DictReader(file).fieldnames or []
    assert {"train/loss", "monitor/effective_rank", "monitor/std", "speed/clips_per_second"} <= set(names)
    assert list((tmp_path / "run" / "logs").glob("events*")), "TensorBoard events"
    assert caplog.messages[-2].startswith("step 12/12")


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=pytest.mark.slow) if name in RESUMED_SLOWLY else name for name in METHODS],
)
def test_a_run_killed_in_mid_epoch_and_resumed_ends_with_the_same_weights(
    method: str, corpus: Path, tmp_path: Path
) -> None:
    whole, killed = describe(tmp_path / "whole", corpus, method), describe(tmp_path / "killed", corpus, method)
    pretrain(whole)
    program = (
        "import json, os, signal, sys\n"
        "import lightning as L\n"
        "from jepa.config import from_dict\n"
        "from jepa.training.pretrain import pretrain\n"
        "from jepa.training.config import PretrainConfig\n"
        "class Kill(L.Callback):\n"
        "    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):\n"
        "        if batch_idx == 7:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "pretrain(from_dict(json.loads(sys.argv[1]), PretrainConfig), callbacks=(Kill(),))\n"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    ended = subprocess.run(
        [sys.executable, "-c", program, killed.model_dump_json()], env=environment, capture_output=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert not (tmp_path / "killed" / "model").exists()
    pretrain(killed, resume=True)
    assert same(tmp_path / "whole", tmp_path / "killed")
    with (tmp_path / "killed" / "logs" / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == sorted(set(steps)) and steps[0] < 5 < steps[-1], "the curve of both parts, no step twice"


def test_the_number_of_loader_workers_does_not_change_the_weights(corpus: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        pretrain(describe(tmp_path / str(workers), corpus, data__workers=workers, trainer__steps=6))
    assert same(tmp_path / "0", tmp_path / "2")


@pytest.mark.parametrize("kind", ["knn", "linear"])
def test_an_online_probe_tells_how_it_goes_and_leaves_the_training_alone(
    kind: str, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps = {"trainer__steps": 6, "trainer__probe": kind}
    pretrain(describe(tmp_path / "alone", corpus, "vjepa", **steps))
    jepa.pretrain(describe(tmp_path / "probed", corpus, "vjepa", **steps, trainer__probe_every=3))
    assert same(tmp_path / "alone", tmp_path / "probed")
    lines = [line for line in caplog.messages if f"{kind} probe" in line]
    assert [line.split(":")[0] for line in lines] == ["step 3", "step 6"]
    scores = json.loads((tmp_path / "probed" / "pretrain.json").read_text())["probe"]
    of_states = {"state_r2", "puck.position_r2", "puck.velocity_r2", "bodies.position_r2", "bodies.velocity_r2"}
    assert of_states & set(scores) == (of_states if kind == "linear" else set())
    assert 0 <= scores["bodies"] <= 1 and scores["seconds"] > 0
    with (tmp_path / "probed" / "logs" / "metrics.csv").open() as file:
        logged = [row["probe/bodies"] for row in csv.DictReader(file) if row["probe/bodies"]]
    assert len(logged) >= 2 and float(logged[-1]) == pytest.approx(scores["bodies"])


def test_an_online_probe_that_cannot_find_anything_is_refused_before_training(tmp_path: Path) -> None:
    videos, shards = tmp_path / "videos", tmp_path / "shards"
    videos.mkdir()
    for number in range(6):
        frames = np.random.default_rng(number).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
        (videos / f"{number}.mp4").write_bytes(encode_mp4(frames, 8))
    with pytest.raises(SystemExit):
        main(["data", "pack", str(videos), str(shards), "--test-share", "0", "--fps", "8"])
    with pytest.raises(UserError, match="no two videos to probe in its test split; use 0"):
        jepa.pretrain(describe(tmp_path / "run", shards, "vjepa", trainer__probe_every=3))


def test_lidar_is_logged_where_the_run_makes_views_of_a_clip(corpus: Path, tmp_path: Path) -> None:
    steps = {"trainer__steps": 4}
    crop = {"data__augment": {"crop": {}}, "data__batch_size": 20}
    pretrain(describe(tmp_path / "crops", corpus, "vjepa", **steps, **crop))
    pretrain(describe(tmp_path / "levjepa", corpus, "levjepa", **steps))
    pretrain(describe(tmp_path / "plain", corpus, "vjepa", **steps))
    found = {
        name: json.loads((tmp_path / name / "pretrain.json").read_text()) for name in ("crops", "levjepa", "plain")
    }
    assert 1 <= found["crops"]["lidar"] <= 15 and 1 <= found["levjepa"]["lidar"] <= 3
    assert found["plain"]["lidar"] is None
    assert 0 < found["plain"]["min_std"] <= found["plain"]["std"]
    # A run is what it was without the monitor.
    pretrain(describe(tmp_path / "unwatched", corpus, "vjepa", **steps, **crop, trainer__monitor_every=1000))
    assert same(tmp_path / "crops", tmp_path / "unwatched")


class Losses(Callback):
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(outputs["loss"].item())  # Lightning has divided it by the number of batches


def test_what_is_logged_of_a_step_is_the_mean_over_its_batches(corpus: Path, tmp_path: Path) -> None:
    losses = Losses()
    changes = {"trainer__accumulate": 3, "trainer__steps": 2, "trainer__log_every": 1}
    pretrain(describe(tmp_path / "run", corpus, "vjepa", **changes), callbacks=(losses,))
    with (tmp_path / "run" / "logs" / "metrics.csv").open() as file:
        logged = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert logged == pytest.approx([sum(losses.seen[:3]), sum(losses.seen[3:])], rel=1e-5)


def test_a_line_of_progress_comes_after_each_tenth_of_a_run_and_after_a_minute_without_one(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(run: str) -> int:
        caplog.clear()
        pretrain(describe(tmp_path / run, corpus, "lewm", trainer__steps=30))
        return sum(line.startswith("step ") and "/30  loss" in line for line in caplog.messages)

    assert told("quick") == 10
    monkeypatch.setattr("jepa.training.callbacks.progress.QUIET_SECONDS", 0.0)
    assert told("slow") == 30


def test_another_seed_gives_other_weights(corpus: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        pretrain(describe(tmp_path / str(seed), corpus, seed=seed, trainer__steps=2))
    assert not same(tmp_path / "0", tmp_path / "1")


def test_a_collapse_is_reported_within_100_steps(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    method = METHODS["vjepa"]["method"] | {"teacher": "none"}
    config = describe(
        tmp_path / "run",
        corpus,
        "vjepa",
        method=method,
        optimizer={"lr": 3e-3},
        trainer__steps=100,
        trainer__monitor_every=10,
    )
    pretrain(config)
    assert "collapsing" in caplog.text and "teacher" in caplog.text
    assert json.loads((tmp_path / "run" / "pretrain.json").read_text())["warnings"]


def test_a_healthy_run_is_not_reported(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pretrain(describe(tmp_path / "run", corpus, trainer__steps=80, trainer__monitor_every=10))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_folder_that_holds_a_run_is_not_overwritten_unasked(corpus: Path, tmp_path: Path) -> None:
    config = describe(tmp_path / "run", corpus, trainer__steps=2)
    pretrain(config)
    with pytest.raises(UserError, match="--overwrite"):
        pretrain(config)
    pretrain(config, overwrite=True)


def test_resuming_with_another_model_is_refused_and_says_what_differs(corpus: Path, tmp_path: Path) -> None:
    pretrain(describe(tmp_path / "run", corpus, trainer__steps=5))
    other = describe(tmp_path / "run", corpus, encoder=CONV | {"width": 16})
    with pytest.raises(UserError, match=r"encoder\.width is 16, was 8"):
        pretrain(other, resume=True)
    with pytest.raises(UserError, match="nothing to resume"):
        pretrain(describe(tmp_path / "none", corpus), resume=True)


def test_weights_of_another_model_are_named(corpus: Path, tmp_path: Path) -> None:
    for name, width in (("a", 8), ("b", 16)):
        pretrain(describe(tmp_path / name, corpus, encoder=CONV | {"width": width}, trainer__steps=1))
    swapped, other = tmp_path / "a" / "model", tmp_path / "b" / "model"
    (swapped / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    description = json.loads((swapped / "model.json").read_text())
    description["sha256"] = json.loads((other / "model.json").read_text())["sha256"]
    write_edited(swapped / "model.json", description)
    with pytest.raises(UserError, match=r"another model: .*has shape .*the model"):
        load(tmp_path / "a")


def test_a_damaged_model_is_refused(corpus: Path, tmp_path: Path) -> None:
    pretrain(describe(tmp_path / "run", corpus, trainer__steps=1))
    file = tmp_path / "run" / "model" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        load(tmp_path / "run")
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "nothing")


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_applied(corpus: Path, tmp_path: Path) -> None:
    config = describe(tmp_path / "run", corpus, optimizer={"lr": 1e30}, trainer__clip_norm=None)
    with pytest.raises(UserError, match=r"loss is (nan|inf).*optimizer.lr"):
        pretrain(config)


def test_a_broken_video_in_a_shard_is_named_and_the_others_are_used(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = damaged_copy(corpus, tmp_path / "shards", "episode-000003")
    config = describe(tmp_path / "run", broken, data__max_bad_fraction=0.1)
    pretrain(config)
    assert [line for line in caplog.messages if "episode-000003" in line and "left out" in line]
    assert list(json.loads((tmp_path / "run" / "pretrain.json").read_text())["left_out"]) == ["episode-000003"]


def damaged_copy(corpus: Path, out: Path, key: str) -> Path:
    """The same shards with zeros in the middle of one video."""
    out.mkdir()
    for file in corpus.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    shard = out / "train-000000.tar"
    with tarfile.open(shard) as tar:
        member = tar.getmember(f"{key}.mp4")
    data = bytearray(shard.read_bytes())
    data[member.offset_data : member.offset_data + member.size] = bytes(member.size)
    shard.write_bytes(data)
    return out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__clip_frames": 40}, "12 frames, a clip needs 40"),
        ({"data__clip_frames": 7}, "no multiple of encoder.tubelet"),
        ({"encoder": VIT}, "lewm needs an encoder with one vector"),
        ({"data__shards": "nowhere"}, "no such folder"),
    ],
)
def test_what_does_not_fit_is_reported_in_one_line(
    changes: dict[str, Any], message: str, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        pretrain(describe(tmp_path / "run", corpus, **changes))
    assert "\n" not in str(caught.value)
