"""What is not finite is neither applied nor saved."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jepa.config import UserError

NAMED = 3  # of the parameters in an error


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
