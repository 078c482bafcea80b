"""`jepa doctor`: what a folder of videos is good for on this machine, and the config to begin with.

The config is V-JEPA with the largest video ViT of LADDER that fits the memory and goes through the videos often enough
within a day (a night on a CPU). Its memory and its operations are computed (jepa/training/cost_model.py); seconds
come from a few measured steps of a small model and the measured decoding. Hours are an estimate.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from jepa.config import from_dict
from jepa.config.source import Dumper
from jepa.methods.base import Batch
from jepa.training.build_method import build_method
from jepa.training.config import PretrainConfig
from jepa.training.cost_model import StepSize, step_size
from jepa.training.trainer import optimizer_of
from jepa_data.inspect import hardware
from jepa_data.inspect.hardware import Hardware
from jepa_data.inspect.survey import Speed, Survey, decode_speed, survey
from jepa_data.printable import printable

# name, (width, depth, heads) of the encoder, (width, depth, heads) of the predictor, pixels a side; the best first.
# The first three are the sizes of ViT-L, ViT-B and ViT-S with V-JEPA's predictor scaled along.
LADDER = (
    ("large", (1024, 24, 16), (384, 12, 12), 224),
    ("base", (768, 12, 12), (384, 12, 12), 224),
    ("base", (768, 12, 12), (384, 12, 12), 160),
    ("small", (384, 12, 6), (192, 6, 6), 160),
    ("small", (384, 12, 6), (192, 6, 6), 112),
    ("tiny", (192, 12, 3), (96, 4, 4), 112),
    ("tiny", (192, 12, 3), (96, 4, 4), 64),
    ("mini", (128, 4, 4), (64, 2, 2), 64),
)
PATCH, TUBELET, CLIP_FRAMES = 16, 2, 16  # V-JEPA
CLIP_FPS = 7.5  # V-JEPA takes every fourth frame of 30 a second
PACKED_FPS, PACKED_SIDE = 15.0, 256  # what `jepa data pack` makes by default
EPOCHS = 100  # over the videos, or as many clips as:
MIN_CLIPS = {True: 500_000, False: 64_000}  # with a GPU, without: thousands of steps
BUDGET_HOURS = {True: 24.0, False: 10.0}
BATCHES = {True: (256, 128, 64, 32, 16), False: (32, 16, 8)}
USED_MEMORY = {True: 0.85, False: 0.5}  # of what is free; a CPU shares it with the workers and everything else
STEPS = 5  # timed; the first two are not


@dataclass(frozen=True)
class Advice:
    """What the doctor says.

    Attributes:
        tree: the config, as plain values.
        rate: measured floating-point operations a second of training.
        step_seconds, data_seconds: of a step, computed and read.
        epoch_hours, run_hours: once through the videos; all steps.
    """

    survey: Survey
    hardware: Hardware
    speed: Speed
    name: str
    tree: dict[str, Any]
    config: PretrainConfig
    size: StepSize
    rate: float
    step_seconds: float
    data_seconds: float
    epoch_hours: float
    run_hours: float

    def lines(self) -> list[str]:
        """The report for people, without the config."""
        data, size, batch = self.config.data, self.size, self.config.data.batch_size
        memory, million, mib = size.memory(batch), 1e6, 2**20
        device = "of the GPU" if self.hardware.gpu else "of what is free"
        return [
            *self.survey.lines(),
            f"  decoding clips of {data.clip_frames} at {data.image_size} px: {self.speed.line()}",
            f"this machine: {self.hardware.line()}",
            f"  training: {self.rate / 1e9:.0f} GFLOP/s, measured with a small model",
            f"recommended: V-JEPA, encoder '{self.name}' ({size.encoder / million:.1f} M parameters), "
            f"{size.tokens} tokens a clip, batches of {batch}",
            f"  memory about {memory / 2**30:.2f} GiB ({memory / self.hardware.training_memory:.0%} {device}): "
            f"weights, optimizer and teacher {size.fixed_bytes / mib:.0f} MiB, {batch} clips of "
            f"{size.clip_bytes / mib:.0f} MiB, + 15 %",
            f"  a step about {max(self.step_seconds, self.data_seconds):.2f} s: {self.step_seconds:.2f} s computing "
            f"({size.flops / 1e9:.1f} GFLOP a clip), {self.data_seconds:.2f} s reading",
            f"  once through the videos about {_hours(self.epoch_hours)}; {self.config.trainer.steps} steps about "
            f"{_hours(self.run_hours)}. These are estimates; other programs on the machine make it slower",
            *self._remarks(),
        ]

    def _remarks(self) -> list[str]:
        lines = []
        if self.data_seconds > self.step_seconds:
            lines.append(
                "  reading is slower than computing: packed at 15 fps and 256 px, videos read 3 to 9 times faster"
            )
        epochs = self.config.trainer.steps * self.config.data.batch_size / max(1, self.survey.usable)
        if epochs < EPOCHS / 4:
            lines.append(f"  in that time each video is seen {epochs:.1f} times; V-JEPA sees its own far more often")
        if self.survey.usable < 100:
            lines.append(
                f"  {self.survey.usable} videos are few: features learned from under a hundred seldom carry over"
            )
        return lines

    def text(self) -> str:
        """The config as a file that `jepa pretrain` reads."""
        shards, folder = self.tree["data"]["shards"], printable(self.survey.folder)
        head = [
            "# jepa pretrain THIS_FILE",
            f"# Made by `jepa doctor {folder}` for: {self.hardware.line()}",
            f"# Memory about {self.size.memory(self.config.data.batch_size) / 2**30:.2f} GiB, time about "
            f"{_hours(self.run_hours)} (estimates); the score is not known beforehand: `jepa probe` tells.",
        ]
        if self.survey.shards is None:
            head.append(f"# First: jepa data pack {folder} {printable(shards)}")
        return (
            "\n".join(head)
            + "\n"
            + yaml.dump(self.tree, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=110)
        )


def doctor(
    folder: Path, *, workers: int | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Advice:
    """Look at a folder of videos or shards and at this machine, and recommend a config.

    Raises:
        DataError: there are no usable videos.
    """
    surveyed, machine = survey(folder, workers=workers, progress=progress), hardware.look()
    return advise(surveyed, machine, training_rate(machine))


def advise(surveyed: Survey, machine: Hardware, rate: float) -> Advice:
    """The config for these videos on this machine, which trains at `rate` operations a second."""
    frames, fps = clip_of(surveyed)
    side = int(np.median([min(video.width, video.height) for video in surveyed.videos]))
    side = min(side, PACKED_SIDE) if surveyed.shards is None else side
    gpu = machine.gpu is not None
    clips = max(EPOCHS * surveyed.usable, MIN_CLIPS[gpu])
    for name, encoder, predictor, wanted in LADDER:
        size = max(32, min(wanted, side // PATCH * PATCH))
        tree = _tree(surveyed, machine, encoder, predictor, size, frames, fps)
        batch = _batch(tree, machine)
        hours = clips * step_size(_config(tree), bf16=machine.bf16, gpu=gpu).flops / rate / 3600
        if (batch and hours <= BUDGET_HOURS[gpu]) or name == LADDER[-1][0]:
            break
    tree["data"]["batch_size"] = batch = batch or BATCHES[gpu][-1]
    estimate = step_size(_config(tree), bf16=machine.bf16, gpu=gpu)
    speed = decode_speed(surveyed, frames, fps, size)
    computing = batch * estimate.flops / rate
    reading = batch * speed.clip_seconds
    # On a CPU both take the same cores, one after the other in effect; beside a GPU, workers read meanwhile.
    tree["data"]["workers"] = count = _workers(machine, reading, computing)
    reading /= count if gpu and count else machine.cores
    step = max(computing, reading) if gpu else computing + reading
    affordable = int(BUDGET_HOURS[gpu] * 3600 / step)
    tree["trainer"]["steps"] = steps = max(100, _rounded(min(clips / batch, affordable)))
    tree["schedule"]["warmup_steps"] = steps // 20
    config = _config(tree)
    epoch = step * surveyed.usable / batch / 3600
    return Advice(
        surveyed, machine, speed, name, tree, config, estimate, rate, computing, reading, epoch, step * steps / 3600
    )


def clip_of(surveyed: Survey) -> tuple[int, float | None]:
    """Frames of a clip and their rate: V-JEPA's, or as much as nine in ten of the videos have."""
    seconds = float(np.quantile([video.seconds for video in surveyed.videos], 0.1))
    if surveyed.shards is not None and surveyed.shards.manifest.action_size:
        own, rate = surveyed.shards.manifest.fps or 1.0, None  # actions belong to every frame
    else:
        own = float(np.median([video.fps for video in surveyed.videos]))
        own = min(own, PACKED_FPS) if surveyed.shards is None else own
        rate = min(CLIP_FPS, own)
        if seconds < CLIP_FRAMES / rate:
            rate = own
        rate = round(rate, 3)
    frames = CLIP_FRAMES
    while frames > 4 and seconds < frames / (rate or own):
        frames //= 2
    return frames, rate


def training_rate(machine: Hardware) -> float:
    """Floating-point operations a second of training steps, measured with a small model for a few seconds at most."""
    gpu = machine.gpu is not None
    _, encoder, predictor, size = LADDER[1 if gpu else 5]
    tree = {
        "run": "",
        "data": {"shards": "", "batch_size": 16 if gpu else 2, "clip_frames": CLIP_FRAMES, "image_size": size},
        "encoder": {"kind": "video_vit", "width": encoder[0], "depth": 2, "heads": encoder[2]},
        "method": {"kind": "vjepa", "predictor": {"width": predictor[0], "depth": 2, "heads": predictor[2]}},
        "trainer": {"steps": 1},
    }
    config, device = _config(tree), torch.device("cuda" if gpu else "cpu")
    method = build_method(config, size, 0)
    assert isinstance(method, nn.Module)
    optimizer = optimizer_of(config)(method.to(device))
    video = torch.zeros(config.data.batch_size, CLIP_FRAMES, 3, size, size, device=device)
    generator, seconds = torch.Generator().manual_seed(0), list[float]()
    for _ in range(STEPS):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=machine.bf16):
            loss = method.loss(Batch(video, None), generator)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    flops = config.data.batch_size * step_size(config, bf16=machine.bf16, gpu=gpu).flops
    return flops / float(np.median(seconds[2:]))


def _tree(
    surveyed: Survey,
    machine: Hardware,
    encoder: tuple[int, int, int],
    predictor: tuple[int, int, int],
    size: int,
    frames: int,
    fps: float | None,
) -> dict[str, Any]:
    """The config as plain values, with the smallest batch."""
    folder, gpu, names = surveyed.folder, machine.gpu is not None, ("width", "depth", "heads")
    shards = str(folder) if surveyed.shards else f"{str(folder).rstrip('/')}-shards"
    data = {"shards": shards, "batch_size": BATCHES[gpu][-1], "clip_frames": frames, "image_size": size}
    data |= {} if fps is None else {"fps": fps}
    return {
        "run": f"runs/{folder.resolve().name or 'mine'}",
        "data": data | {"short": "skip", "workers": 0},
        "encoder": {"kind": "video_vit", "patch": PATCH, "tubelet": TUBELET} | dict(zip(names, encoder, strict=True)),
        "method": {"kind": "vjepa", "predictor": dict(zip(names, predictor, strict=True)), "ema": [0.998, 1.0]},
        "optimizer": {"lr": 6.0e-4 if encoder[0] > 192 else 1.0e-3, "weight_decay": 0.04},
        "schedule": {"kind": "cosine", "warmup_steps": 0},
        "trainer": {"steps": 1, "precision": "bf16" if machine.bf16 else "fp32"},
    }


def _config(tree: dict[str, Any]) -> PretrainConfig:
    return from_dict(tree, PretrainConfig, source="doctor")


def _batch(tree: dict[str, Any], machine: Hardware) -> int | None:
    """The largest batch that fits the memory; None if none does."""
    gpu = machine.gpu is not None
    size = step_size(_config(tree), bf16=machine.bf16, gpu=gpu)
    fits = [batch for batch in BATCHES[gpu] if size.memory(batch) <= USED_MEMORY[gpu] * machine.training_memory]
    return fits[0] if fits else None


def _workers(machine: Hardware, reading: float, computing: float) -> int:
    """As many as keep up with the computing, and a third more. A CPU that trains needs one, if it has cores for it."""
    if machine.gpu is None:
        return int(machine.cores > 1)
    return max(1, min(machine.cores, int(4 / 3 * reading / computing) + 1))


def _rounded(steps: float) -> int:
    """Two digits, downwards."""
    scale = 10 ** max(0, int(np.log10(max(1.0, steps))) - 1)
    return int(steps // scale * scale)


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"
