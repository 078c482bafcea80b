"""`jepa doctor`: what a folder of videos is good for on this machine, and the config to begin with.

The config is V-JEPA with the largest video ViT of LADDER that fits the memory and goes through the videos often enough
within a day (a night on a CPU). Its memory and its operations are computed (jepa/training/cost_model.py); seconds
come from a few measured steps of a small model and the measured decoding. Hours are an estimate.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa.config import from_dict
from jepa.methods.base import Batch
from jepa.training.build_method import build_method
from jepa.training.config import PretrainConfig
from jepa.training.cost_model import StepSize, step_size
from jepa.training.doctor.ladder import EPOCHS, LADDER, Rung, budget_of
from jepa.training.doctor.report import Advice
from jepa.training.optim import optimizer_of
from jepa_data.inspect import hardware
from jepa_data.inspect.hardware import Hardware
from jepa_data.inspect.survey import Survey, decode_speed, survey

PATCH = 16  # this and the next two: V-JEPA
TUBELET = 2
CLIP_FRAMES = 16
CLIP_FPS = 7.5  # V-JEPA takes every fourth frame of 30 a second
PACKED_FPS = 15.0  # what `jepa data pack` makes by default
PACKED_SIDE = 256
STEPS = 5  # timed; the first two are not


def doctor(
    folder: Path, *, workers: int | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Advice:
    """Look at a folder of videos or shards and at this machine, and recommend a config.

    Raises:
        DataError: there are no usable videos.
    """
    surveyed = survey(folder, workers=workers, progress=progress)
    machine = hardware.look()
    return advise(surveyed, machine, training_rate(machine))


def advise(surveyed: Survey, machine: Hardware, rate: float) -> Advice:
    """The config for these videos on this machine, which trains at `rate` operations a second."""
    budget = budget_of(machine)
    frames, fps = clip_of(surveyed)
    side = int(np.median([min(video.width, video.height) for video in surveyed.videos]))
    if surveyed.shards is None:
        side = min(side, PACKED_SIDE)
    clips = max(EPOCHS * surveyed.usable, budget.clips)
    for rung in LADDER:
        pixels = max(32, min(rung.pixels, side // PATCH * PATCH))
        tree = _tree(surveyed, machine, rung, pixels, frames, fps)
        size = _step_size(tree, machine)
        room = budget.memory * machine.training_memory
        batch = next((batch for batch in budget.batches if size.memory(batch) <= room), None)
        if batch and clips * size.flops / rate / 3600 <= budget.hours:
            break
    tree["data"]["batch_size"] = batch = batch or budget.batches[-1]
    speed = decode_speed(surveyed, frames, fps, pixels)
    computing = batch * size.flops / rate
    reading = batch * speed.clip_seconds
    if machine.gpu is None:  # both take the same cores, one after the other in effect
        workers = int(machine.cores > 1)
        reading /= machine.cores
        step = computing + reading
    else:  # as many workers as keep up with the computing, and a third more, read meanwhile
        workers = max(1, min(machine.cores, int(4 / 3 * reading / computing) + 1))
        reading /= workers
        step = max(computing, reading)
    affordable = int(budget.hours * 3600 / step)
    steps = max(100, _rounded(min(clips / batch, affordable)))
    tree["data"]["workers"] = workers
    tree["trainer"]["steps"] = steps
    tree["schedule"]["warmup_steps"] = steps // 20
    epoch = step * surveyed.usable / batch / 3600
    run = step * steps / 3600
    return Advice(surveyed, machine, speed, rung.name, tree, _config(tree), size, rate, computing, reading, epoch, run)


def clip_of(surveyed: Survey) -> tuple[int, float | None]:
    """Frames of a clip and their rate: V-JEPA's, or as much as nine in ten of the videos have."""
    seconds = float(np.quantile([video.seconds for video in surveyed.videos], 0.1))
    if surveyed.shards is not None and surveyed.shards.manifest.action_size:  # actions belong to every frame
        return _frames(seconds, surveyed.shards.manifest.fps or 1.0), None
    own = float(np.median([video.fps for video in surveyed.videos]))
    if surveyed.shards is None:
        own = min(own, PACKED_FPS)
    rate = min(CLIP_FPS, own)
    if seconds < CLIP_FRAMES / rate:
        rate = own
    rate = round(rate, 3)
    return _frames(seconds, rate), rate


def _frames(seconds: float, rate: float) -> int:
    frames = CLIP_FRAMES
    while frames > 4 and seconds < frames / rate:
        frames //= 2
    return frames


def training_rate(machine: Hardware) -> float:
    """Floating-point operations a second of training steps, measured with a small model for a few seconds at most."""
    budget = budget_of(machine)
    rung = budget.timed
    tree = {
        "run": "",
        "data": {"shards": "", "batch_size": budget.timed_batch, "clip_frames": CLIP_FRAMES, "image_size": rung.pixels},
        "encoder": {"kind": "video_vit"} | asdict(rung.encoder) | {"depth": 2},
        "method": {"kind": "vjepa", "predictor": asdict(rung.predictor) | {"depth": 2}},
        "trainer": {"steps": 1},
    }
    config = _config(tree)
    device = torch.device(budget.device)
    method = build_method(config, rung.pixels, 0)
    optimizer = optimizer_of(config.optimizer)(method.to(device))
    video = torch.zeros(budget.timed_batch, CLIP_FRAMES, 3, rung.pixels, rung.pixels, device=device)
    generator = torch.Generator().manual_seed(0)
    seconds: list[float] = []
    for _ in range(STEPS):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=machine.bf16):
            loss = method.loss(Batch(video, None), generator)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    return budget.timed_batch * _step_size(tree, machine).flops / float(np.median(seconds[2:]))


def _tree(
    surveyed: Survey, machine: Hardware, rung: Rung, pixels: int, frames: int, fps: float | None
) -> dict[str, Any]:
    """The config as plain values, with the smallest batch."""
    folder = surveyed.folder
    shards = str(folder) if surveyed.shards else f"{str(folder).rstrip('/')}-shards"
    batch = budget_of(machine).batches[-1]
    data: dict[str, Any] = {"shards": shards, "batch_size": batch, "clip_frames": frames, "image_size": pixels}
    if fps is not None:
        data["fps"] = fps
    return {
        "run": f"runs/{folder.resolve().name or 'mine'}",
        "data": data | {"short": "skip", "workers": 0},
        "encoder": {"kind": "video_vit", "patch": PATCH, "tubelet": TUBELET} | asdict(rung.encoder),
        "method": {"kind": "vjepa", "predictor": asdict(rung.predictor), "ema": [0.998, 1.0]},
        "optimizer": {"lr": 6.0e-4 if rung.encoder.width > 192 else 1.0e-3, "weight_decay": 0.04},
        "schedule": {"kind": "cosine", "warmup_steps": 0},
        "trainer": {"steps": 1, "precision": "bf16" if machine.bf16 else "fp32"},
    }


def _config(tree: dict[str, Any]) -> PretrainConfig:
    return from_dict(tree, PretrainConfig, source="doctor")


def _step_size(tree: dict[str, Any], machine: Hardware) -> StepSize:
    return step_size(_config(tree), bf16=machine.bf16, gpu=machine.gpu is not None)


def _rounded(steps: float) -> int:
    """Two digits, downwards."""
    scale = 10 ** max(0, int(np.log10(max(1.0, steps))) - 1)
    return int(steps // scale * scale)
