"""A training of a second: its shards, its config, and what two runs are compared by."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import yaml

from jepa.config import from_dict
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.write import ShardWriter
from jepa_data.sources.rollouts import Recording, record
from tests.reliability.processes import forked, tell

CONV = {"kind": "conv", "width": 8, "channels": 8, "hidden": 32}
VIT = {"kind": "video_vit", "patch": 8, "width": 24, "depth": 1, "heads": 2}
METHODS: dict[str, dict[str, Any]] = {
    "lewm": {"encoder": CONV, "method": {"kind": "lewm", "directions": 16, "predictor": {"hidden": 32}}},
    "vjepa": {
        "encoder": VIT,
        "method": {"kind": "vjepa", "ema": [0.9, 0.9], "predictor": {"width": 24, "depth": 1, "heads": 2}},
    },
}
ORDER = "order.txt"  # in a run folder: the samples of each step


def corpus(folder: Path, episodes: int = 24, frames: int = 12) -> Path:
    """Shards of short billiards episodes of 32 px, made once."""
    out = folder / f"shards-{episodes}x{frames}"
    if not out.exists():
        recording = Recording("billiards-easy", episodes=episodes, frames=frames, image_size=32)
        succeed(forked(lambda: _record(recording, out)))
    return out


def _record(recording: Recording, out: Path) -> None:
    record(recording, out)


def numbered_shards(out: Path, samples: int, shard_bytes: int = 2**16, frames: int = 12) -> Path:
    """Shards of many samples of 32 px that are made in a moment: a few videos, again and again."""
    random = np.random.default_rng(0)
    videos = [encode_mp4(random.integers(0, 256, (frames, 8, 8, 3), np.uint8).repeat(4, 1).repeat(4, 2), 10.0)]
    videos += [encode_mp4(random.integers(0, 256, (frames, 8, 8, 3), np.uint8).repeat(4, 1).repeat(4, 2), 10.0)]
    with ShardWriter(
        out,
        fps=10.0,
        image_size=32,
        world=None,
        action_size=2,
        state_names=[],
        label_names=[],
        seed=0,
        shard_bytes=shard_bytes,
    ) as writer:
        for number in range(samples):
            actions = random.normal(size=(frames - 1, 2)).astype(np.float32)
            writer.write("train", f"sample-{number:05d}", videos[number % 2], frames, actions, None, {})
    return out


def describe(run: Path, shards: Path, method: str = "lewm", **changes: Any) -> dict[str, Any]:
    """The config of a tiny run. `trainer__steps=4` changes a part of it."""
    config: dict[str, Any] = {
        "run": str(run),
        "data": {"shards": str(shards), "batch_size": 4, "clip_frames": 8},
        "trainer": {"steps": 8, "log_every": 1, "monitor_every": 1000, "checkpoint_every": 4, "device": "cpu"},
        **METHODS[method],
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        config[part] = {**config[part], name: value} if name else value
    return config


def write_config(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(config))
    return path


class Steps(L.Callback):
    """Tells the parent of every step, and writes down its samples."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        with (Path(trainer.loggers[0].save_dir).parent / ORDER).open("a") as file:
            file.write(f"{batch_idx} {' '.join(batch.keys)}\n")
        tell(f"step {batch_idx}")


def train(config: dict[str, Any], *callbacks: L.Callback, resume: bool = False) -> None:
    """As `jepa pretrain` does, with `Steps` and further callbacks."""
    from jepa.cli.show import show_messages

    show_messages()
    pretrain(from_dict(config, PretrainConfig), resume=resume, callbacks=(Steps(), *callbacks))


def losses(run: Path) -> list[tuple[str, str]]:
    """Step and loss of every row of metrics.csv, as they are written there."""
    with (run / "logs" / "metrics.csv").open(newline="") as file:
        return [(row["step"], row["train/loss"]) for row in csv.DictReader(file)]


def order(run: Path) -> dict[int, set[str]]:
    """The samples of each step: one line each, if a step that was taken again had the same ones."""
    steps: dict[int, set[str]] = {}
    for line in (run / ORDER).read_text().splitlines():
        step, _, keys = line.partition(" ")
        steps.setdefault(int(step), set()).add(keys)
    return steps


def weights(run: Path) -> str:
    """SHA-256 of the model's tensors."""
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def differences(whole: Path, run: Path) -> list[str]:
    """In what a run differs from one that was not interrupted."""
    if not (run / "model" / "model.json").is_file():
        return ["there is no model"]
    pairs = {"losses": losses, "order of the samples": order, "weights": weights}
    return [name for name, read in pairs.items() if read(whole) != read(run)]


def succeed(ended: Any, what: Sequence[object] = ()) -> None:
    """Raises RuntimeError for a process that should have ended well: the experiment itself failed."""
    if ended.code:
        raise RuntimeError(f"{' '.join(map(str, what))}: exit code {ended.code}\n{ended.errors[-3000:]}")
