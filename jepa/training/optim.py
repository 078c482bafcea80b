"""AdamW and learning-rate schedules."""

import math
from collections.abc import Callable

import torch
from torch import nn


def adamw(module: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW over what is trained; biases and other 1-D parameters are not decayed, as in V-JEPA."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas)


def cosine(total_steps: int, warmup_steps: int, final: float) -> Callable[[int], float]:
    """Factor of the learning rate by step: linear to 1 over the warm-up, then half a cosine to `final` at the end."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


def flat(warmup_steps: int) -> Callable[[int], float]:
    """Factor of the learning rate by step: linear to 1 over the warm-up, then 1."""
    return lambda step: min(1.0, (step + 1) / max(1, warmup_steps))
