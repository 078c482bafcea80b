"""AdamW and learning-rate schedules."""

import math
from collections.abc import Callable

import torch
from torch import nn


def adamw(module: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW over what is trained; biases and other 1-D parameters are not decayed, as in V-JEPA."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay, "decayed": True},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "decayed": False},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas)


def cosine(total_steps: int, warmup_steps: int, final: float, start: float = 0.0) -> Callable[[int], float]:
    """Factor of the learning rate by step: `start` to 1 over the warm-up, then half a cosine to `final` at the end."""
    decay = half_cosine(1.0, final, total_steps - warmup_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _warmup(step, warmup_steps, start)
        return decay(step - warmup_steps)

    return factor


def flat(warmup_steps: int, start: float = 0.0) -> Callable[[int], float]:
    """Factor of the learning rate by step: `start` to 1 over the warm-up, then 1."""
    return lambda step: _warmup(step, warmup_steps, start) if step < warmup_steps else 1.0


def wsd(
    total_steps: int, warmup_steps: int, decay_steps: int, final: float, start: float = 0.0
) -> Callable[[int], float]:
    """Factor of the learning rate by step: warm-up, stable at 1, and a straight line to `final` in the last steps.

    With `decay_steps == total_steps` it is the cooldown of V-JEPA 2: a line from 1 that would reach `final` at step
    `total_steps`, the first that is not taken.
    """
    if warmup_steps + decay_steps > total_steps:
        raise ValueError(
            f"the warm-up and the decay take {warmup_steps} + {decay_steps} steps, the run has {total_steps}; "
            "shorten schedule.warmup_steps or schedule.decay_steps, or raise trainer.steps"
        )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _warmup(step, warmup_steps, start)
        left = max(0, total_steps - step)
        return final + (1 - final) * left / decay_steps if left < decay_steps else 1.0

    return factor


def _warmup(step: int, warmup_steps: int, start: float) -> float:
    """A line that leaves `start` with the first step and is at 1 in the last step of the warm-up, as V-JEPA counts."""
    return start + (1 - start) * (step + 1) / warmup_steps


def half_cosine(first: float, last: float, total_steps: int) -> Callable[[int], float]:
    """From `first` at step 0 to `last` at step `total_steps`: V-JEPA 1's weight decay, 0.04 to 0.4."""
    return lambda step: last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total_steps))))
