"""`jepa doctor --recipe`: what a V-JEPA recipe takes on several devices, from its config alone.

Every device holds the whole model (DDP) or a part of it (FSDP2), and its share of the batch: in parts of `clips`, as
many as fit, whose gradients are gathered (trainer.accumulate). Seconds follow from the rate that a device is said to
reach; what the devices send to each other is not counted.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jepa.config import UserError, load
from jepa.config.shipped import shipped_configs
from jepa.training.config import PretrainConfig
from jepa.training.cost_model import StepSize, step_size

PUBLISHED = "pretrain/published"
USABLE = 0.9  # of a device's memory; the rest is of its driver and of libraries
RECOMPUTED = 4 / 3  # times the operations, where the encoder's forward pass runs twice


@dataclass(frozen=True)
class RecipeAdvice:
    """What one way of training takes.

    Attributes:
        clips: at a time on each device, the largest part of its share that fits; 0: not one.
        parts: batches whose gradients are gathered for a step.
        memory: bytes of a device at the peak.
        strategy: `trainer.strategy`.
    """

    strategy: Literal["ddp", "fsdp2"]
    size: StepSize
    recomputes: bool
    clips: int
    parts: int
    memory: int


def shipped(name: str) -> Path:
    """The file of a recipe: a path, or the name of a published one.

    Raises:
        UserError: there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    found = {file.stem: file for file in sorted((shipped_configs() / PUBLISHED).rglob("*.yaml"))}
    if name not in found:
        raise UserError(f"--recipe: there is no file {name}, and no published recipe of that name: {', '.join(found)}")
    return found[name]


def ways(config: PretrainConfig, devices: int, memory: float) -> list[RecipeAdvice]:
    """With DDP and FSDP2, each keeping all, and recomputing the blocks of the encoder.

    Args:
        memory: of a device in bytes.

    Raises:
        UserError: the batch does not divide, or the recipe is not of V-JEPA.
    """
    share, rest = divmod(config.data.batch_size, devices)
    if rest or not share:
        raise UserError(f"data.batch_size {config.data.batch_size} does not divide into {devices} devices")
    strategies = ("ddp",) if devices == 1 else ("ddp", "fsdp2")
    return [_way(config, devices, memory, strategy, every) for strategy in strategies for every in (0, 1)]


def _way(
    config: PretrainConfig, devices: int, memory: float, strategy: Literal["ddp", "fsdp2"], every: int
) -> RecipeAdvice:
    assert config.encoder is not None
    share = config.data.batch_size // devices
    shards = devices if strategy == "fsdp2" else 1
    encoder = config.encoder.model_copy(update={"checkpoint_every": every})
    size = step_size(config.model_copy(update={"encoder": encoder}), bf16=True, gpu=True)
    parts = (parts for parts in range(1, share + 1) if share % parts == 0)
    chosen = next((n for n in parts if size.memory(share // n, shards) <= USABLE * memory), None)
    clips = 0 if chosen is None else share // chosen
    peak = size.memory(max(1, clips), shards)
    return RecipeAdvice(strategy, size, bool(every), clips, chosen or 0, peak)


def recipe_lines(name: str, devices: int, memory: float, rate: float) -> list[str]:
    """The report for people.

    Args:
        memory: of a device in bytes.
        rate: floating-point operations a second that a device reaches.
    """
    path = shipped(name)
    config = load(path, PretrainConfig)
    several = ways(config, devices, memory)
    size, data, steps = several[0].size, config.data, config.trainer.steps
    fixed = f"weights, optimizer and teacher take {size.fixed() / 2**30:.1f} GiB"
    if devices > 1:
        fixed += f", with trainer.strategy=fsdp2 {size.fixed(devices) / 2**30:.1f} GiB"
    lines = [
        f"{path}: V-JEPA, {size.encoder / 1e6:,.1f} M parameters in the encoder, {size.predictor / 1e6:,.1f} M in the "
        f"predictor",
        f"  {data.clip_frames} frames of {data.image_size} px are {size.tokens} tokens and {size.flops / 1e12:.2f} "
        f"TFLOP of training; {data.batch_size} clips a step, {steps} steps",
        f"{devices} devices of {memory / 2**30:.0f} GiB (bf16): {data.batch_size // devices} clips of each step on "
        f"each; {fixed}",
    ]
    for way in several:
        what = "recomputing encoder blocks (encoder.checkpoint_every=1)" if way.recomputes else "keeping all"
        what = f"{way.strategy}, {what}" if devices > 1 else what
        each = f"{way.size.clip_bytes / 2**20:,.0f} MiB a clip"
        if not way.clips:
            lines.append(f"  {what}: {each}; not one fits")
            continue
        seconds = data.batch_size * way.size.flops * (RECOMPUTED if way.recomputes else 1) / devices / rate
        lines.append(
            f"  {what}: {each}; {way.clips} at a time, {way.memory / 2**30:.1f} GiB, trainer.accumulate={way.parts}; "
            f"{seconds:.2f} s a step, {seconds * steps / 86400:.1f} days"
        )
    return [*lines, f"Estimates, at {rate / 1e12:.0f} TFLOP/s a device; the loader must keep up with it."]
