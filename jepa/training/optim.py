"""Optimizers, their rates by step, and checks: what is not finite is neither applied nor saved.

DreamerV3 (2301.04104) clips the gradient of each parameter to a share of the parameter's norm (AGC), divides it by its
RMS and then averages it: `optimizer: {kind: laprop, adaptive_clip: 0.3}`, LaProp of timm. Muon, also of timm, makes the
averaged gradient of a matrix orthogonal, so that all its directions learn at one rate (K. Jordan, 2024).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from timm.optim import muon as timm_muon
from timm.optim.laprop import LaProp
from torch import Tensor, nn

from jepa.config import UserError, errors_of
from jepa.training.config import OptimizerConfig, PretrainConfig
from jepa.training.schedules import SCHEDULES
from jepa.training.schedules.base import Schedule
from jepa.training.schedules.cosine import half_cosine
from jepa.training.sharding import whole
from jepa_data.printable import first_few

NAMED = 3  # of the parameters in an error
MIN_NORM = 1e-3  # of a parameter, for AGC (DreamerV3)
LAPROP_EPS = 1e-20  # DreamerV3


class NotFiniteError(UserError):
    """A loss, a gradient or a weight is NaN or infinite."""


@dataclass(frozen=True)
class Optimization:
    """How a method is stepped.

    Attributes:
        make_optimizer: builds the optimizer over the method.
        lr_factor: of the step, times the optimizer's learning rate.
        weight_decay: of the step, for the parameters that are decayed; None leaves the optimizer's.
        adaptive_clip: largest norm of a parameter's gradient, as a share of the parameter's.
    """

    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    lr_factor: Callable[[int], float]
    weight_decay: Callable[[int], float] | None = None
    adaptive_clip: float | None = None


def optimization(config: PretrainConfig) -> Optimization:
    """Raises UserError if the parts of the schedule are longer than the run."""
    first = config.optimizer.weight_decay
    last = config.optimizer.final_weight_decay
    decay = None if last is None else half_cosine(first, last, config.trainer.steps)
    return Optimization(optimizer_of(config.optimizer), schedule_of(config), decay, config.optimizer.adaptive_clip)


def optimizer_of(config: OptimizerConfig) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """What makes the optimizer of a module."""
    make = {"adamw": adamw, "laprop": laprop, "muon": muon}[config.kind]
    settings = config.model_dump(include={"lr", "weight_decay", "betas"})

    def made(module: nn.Module) -> torch.optim.Optimizer:
        optimizer = make(module, **settings)
        optimizer.register_load_state_dict_post_hook(_lay_out_as_parameters)
        return optimizer

    return made


def _lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Let moments that were read lie in memory as their parameters do, such as kernels with their channels last.

    Fused AdamW goes through both side by side, and mixes up the entries of those that lie otherwise without a word.
    """
    for parameter, state in optimizer.state.items():
        for name, x in state.items():
            if isinstance(x, Tensor) and x.shape == parameter.shape and x.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=x.dtype).copy_(x)


def schedule_of(config: PretrainConfig) -> Schedule:
    """Factor of the learning rate by step.

    Raises:
        UserError: the parts of the schedule are longer than the run.
    """
    with errors_of("schedule"):
        return SCHEDULES.make(config.schedule, config.optimizer.lr, config.trainer.steps)


def adamw(module: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW over what is trained; biases and other 1-D parameters are not decayed, as in V-JEPA."""
    return torch.optim.AdamW(_groups(module, weight_decay), lr=lr, betas=betas, fused=True)


def laprop(module: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float]) -> LaProp:
    """LaProp (2002.04839) over what is trained, with DreamerV3's epsilon."""
    return LaProp(_groups(module, weight_decay), lr=lr, betas=betas, eps=LAPROP_EPS)


class Muon(timm_muon.Muon):
    """timm's Muon, which makes matrices orthogonal in bf16: here in fp32 on a CPU. Many have no products in bf16."""

    def step(self, closure: Any = None) -> Any:
        with patch.object(timm_muon, "zeropower_via_newtonschulz", _orthogonal):
            return super().step(closure)


def _orthogonal(
    matrix: Tensor,
    *args: Any,
    newton_schulz: Callable[..., Tensor] = timm_muon.zeropower_via_newtonschulz,
    **kwargs: Any,
) -> Tensor:
    dtype = torch.float32 if matrix.device.type == "cpu" else torch.bfloat16
    return newton_schulz(matrix, *args, dtype=dtype, **kwargs)


def muon(module: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float]) -> Muon:
    """Muon over the matrices and kernels that are trained, and AdamW with `betas` over biases and other 1-D parameters.

    Steps of both have the same size, so learning rates are about those of AdamW (arXiv 2502.16982).
    """
    return Muon(_groups(module, weight_decay), lr=lr, betas=betas)


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay, "decayed": True},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "decayed": False},
    ]


def clip_adaptively(parameters: Iterable[Tensor], share: float) -> None:
    """Scale the gradient of each parameter to at most `share` of the parameter's norm, or of 0.001 if that is more."""
    for p in parameters:
        if p.grad is not None:
            largest = share * p.detach().norm().clamp_min(MIN_NORM)
            p.grad.mul_((largest / p.grad.norm().clamp_min(1e-12)).clamp_max(1))


def clip_gradients(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    max_norm: float | None,
    step: int,
    adaptive: float | None = None,
) -> None:
    """Scale the gradients so that their norm is `max_norm` at most; None leaves them.

    Args:
        module: names the parameters.
        step: for the error.
        adaptive: first `clip_adaptively` to this share.

    Raises:
        NotFiniteError: a gradient is not finite, or the norm of them all is not; nothing was changed.
    """
    norm = norm_of_gradients(optimizer)
    if not norm.isfinite():
        bad = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        what = f"gradient of {first_few(bad, NAMED)}" if bad else "norm of the gradients"
        raise NotFiniteError(f"the {what} is not finite at step {step}")
    scale_gradients(optimizer, norm, max_norm, adaptive)


def scale_gradients(
    optimizer: torch.optim.Optimizer, norm: Tensor, max_norm: float | None, adaptive: float | None
) -> None:
    """Scale gradients whose norm is `norm` as `clip_gradients` does, without a look at them."""
    trained = _with_gradient(optimizer)
    if adaptive is not None:
        clip_adaptively(trained, adaptive)
        norm = norm_of_gradients(optimizer)
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(trained, max_norm, norm)


def norm_of_gradients(optimizer: torch.optim.Optimizer) -> Tensor:
    """Of all gradients of an optimizer, one number; of weights that are sharded, over all processes."""
    return whole(torch.nn.utils.get_total_norm([p.grad for p in _with_gradient(optimizer) if p.grad is not None]))


def _with_gradient(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def hears_later(device: torch.device, optimizer: torch.optim.Optimizer) -> bool:
    """Whether a program goes on before it knows whether a step was finite.

    So it does on a GPU, if the optimizer can leave out a step by a number that is there, `found_inf`.
    """
    leaves_out_steps = isinstance(optimizer, torch.optim.AdamW) and bool(optimizer.defaults["fused"])
    return device.type == "cuda" and leaves_out_steps


def check_state(tensors: Mapping[str, Tensor], optimizers: Iterable[Mapping[str, Any]], what: str) -> None:
    """Raises NotFiniteError naming the parameters of a training that are not finite.

    Args:
        tensors: the weights, by name.
        optimizers: their state dicts.
        what: is not written for that reason.
    """
    if bad := _not_finite(tensors, optimizers):
        raise NotFiniteError(
            f"{what} is not written: {bad} is not finite. The last checkpoint is older and was left as it is; "
            "start again with a lower optimizer.lr or trainer.clip_norm, or resume with trainer.precision=fp32"
        )


def check_read(tensors: Mapping[str, Tensor], optimizers: Iterable[Mapping[str, Any]], path: str) -> None:
    """Raises UserError naming what is not finite in a checkpoint that was read."""
    if bad := _not_finite(tensors, optimizers):
        raise UserError(f"{path}: damaged: {bad} is not finite")


def _not_finite(tensors: Mapping[str, Tensor], optimizers: Iterable[Mapping[str, Any]]) -> str:
    named = {name: x for name, x in tensors.items() if x.is_floating_point()}
    for optimizer in optimizers:
        for number, state in optimizer["state"].items():
            named |= {f"the optimizer's {k} {number}": x for k, x in state.items() if isinstance(x, Tensor)}
    devices: dict[torch.device, list[Tensor]] = {}
    for x in named.values():
        devices.setdefault(x.device, []).append(x.isfinite().all())
    if all(torch.stack(flags).all() for flags in devices.values()):  # one wait for a GPU, not one a tensor
        return ""
    return first_few([name for name, x in named.items() if not x.isfinite().all()], NAMED)
