"""AdamW, learning-rate schedules, and checks: what is not finite is neither applied nor saved."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jepa.config import UserError

NAMED = 3  # of the parameters in an error


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


def clip_gradients(module: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float | None, step: int) -> None:
    """Scale the gradients so that their norm is `max_norm` at most; None leaves them.

    Args:
        module: names the parameters.
        step: for the error.

    Raises:
        UserError: a gradient is not finite, or the norm of them all is not.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if not norm.isfinite():
        bad = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        what = f"the gradient of {_listed(bad)} is not finite" if bad else "the norm of the gradients is not finite"
        raise UserError(
            f"{what} at step {step}; nothing of this step was applied. Start again with a lower optimizer.lr or "
            "trainer.clip_norm, or resume with trainer.precision=fp32"
        )
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(trained, max_norm, norm)


def check_state(tensors: Mapping[str, Tensor], optimizers: Iterable[Mapping[str, Any]], what: str) -> None:
    """Raises UserError naming the parameters of a training that are not finite.

    Args:
        tensors: the weights, by name.
        optimizers: their state dicts.
        what: is not written for that reason.
    """
    if bad := _not_finite(tensors, optimizers):
        raise UserError(
            f"{what} is not written: {_listed(bad)} is not finite. The last checkpoint is older and was left as it is; "
            "start again with a lower optimizer.lr or trainer.clip_norm, or resume with trainer.precision=fp32"
        )


def check_read(tensors: Mapping[str, Tensor], optimizers: Iterable[Mapping[str, Any]], path: str, advice: str) -> None:
    """Raises UserError naming what is not finite in a checkpoint that was read."""
    if bad := _not_finite(tensors, optimizers):
        raise UserError(f"{path}: damaged: {_listed(bad)} is not finite. {advice}")


def _not_finite(tensors: Mapping[str, Tensor], optimizers: Iterable[Mapping[str, Any]]) -> list[str]:
    named = {name: x for name, x in tensors.items() if x.is_floating_point()}
    for optimizer in optimizers:
        for number, state in optimizer["state"].items():
            named |= {f"the optimizer's {k} {number}": x for k, x in state.items() if isinstance(x, Tensor)}
    devices: dict[torch.device, list[Tensor]] = {}
    for x in named.values():
        devices.setdefault(x.device, []).append(x.isfinite().all())
    if all(torch.stack(flags).all() for flags in devices.values()):  # one wait for a GPU, not one a tensor
        return []
    return [name for name, x in named.items() if not x.isfinite().all()]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
