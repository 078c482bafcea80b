"""What happens to a step whose loss or gradient is NaN or infinite. Nothing of it is applied, whatever the policy.

    stop        the run ends with an error
    skip        the step is left out and counted; after `limit` steps in a row the run ends with an error
    roll_back   the run goes on from its last checkpoint with its data in another order (jepa.training.pretrain)

A loss that is not finite turns all gradients into NaN, also those of other processes, with which they are averaged. So
one look at the norm of the gradients, which is needed for clipping anyhow, finds both, and all processes decide alike.

A look at a number on a GPU waits until the GPU has done all that it was asked for. So there, with an optimizer that can
leave out a step by itself (fused AdamW), what a step would change is left or given back on the GPU, and the program
hears of it one step later, when the number has long arrived (`later`):

    program   step k: forward, backward, is it finite? → k + 1: forward, backward, what was it of k? → …
    GPU       step k: keeps weights, moments, teacher and statistics if not    →    k + 1: …
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from jepa.methods.base import Method
from jepa.training.optim import NotFiniteError

logger = logging.getLogger(__name__)
ADVICE = (
    "nothing of this step was applied. Start again with a lower optimizer.lr or trainer.clip_norm, resume with "
    "trainer.precision=fp32, or let such steps be left out: trainer.not_finite=skip"
)


@dataclass
class NonFinitePolicy:
    """Refuses such steps.

    Attributes:
        skip: whether to leave them out.
        limit: how many in a row.
        later: whether the program hears one step later that a step was refused.
        skipped: steps left out so far.
    """

    skip: bool = False
    limit: int = 1
    later: bool = False
    skipped: int = 0
    _refused: bool | Tensor = False  # the last step
    _unheard: "_Unheard | None" = None
    _in_a_row: int = 0
    _losses: list[Tensor] = field(default_factory=list)  # of the batches of one step
    _buffers: dict[str, Tensor] = field(default_factory=dict)  # before it

    def before(self, method: Method) -> None:
        """Called before each forward pass: the first of a step finds the statistics that a refused step gives back."""
        if not self._losses:
            self._buffers = _copies(buffers(method))

    def spread(self, loss: Tensor) -> Tensor:
        """The loss; one that is not finite with NaN for every gradient."""
        self._losses.append(loss.detach())
        return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)

    def accept(self) -> None:
        """The gradients of the step are finite."""
        self._end()
        self._refused = False
        self._in_a_row = 0

    def refuse(self, error: NotFiniteError, method: Method, step: int) -> None:
        """Give back the statistics.

        Raises:
            NotFiniteError: such steps are not left out, or there were too many in a row.
        """
        losses = tuple(self._losses)
        for name, x in buffers(method).items():
            x.copy_(self._buffers[name])
        self._end()
        self._refused = True
        self._count(losses, str(error), step)

    def refuse_if(self, refused: Bool[Tensor, ""], method: Method, step: int) -> None:
        """Accept or refuse a step without waiting for which. `hear` tells; it is called before the next step."""
        assert self._unheard is None
        keep_if(refused, buffers(method), self._buffers)
        self._refused = refused
        self._unheard = _Unheard(step, tuple(self._losses), Arriving(refused))
        self._end()

    def hear(self) -> None:
        """What became of a step that `refuse_if` was called for. Raises NotFiniteError as `refuse` does."""
        unheard, self._unheard = self._unheard, None
        if unheard is None:
            return
        if unheard.refused.value():
            self._count(unheard.losses, f"the norm of the gradients is not finite at step {unheard.step}", unheard.step)
        else:
            self._in_a_row = 0

    def unless_refused(self, method: Method, change: Callable[[], None]) -> None:
        """Let `change` change the method after a step, if that was applied."""
        if isinstance(self._refused, Tensor):
            before = _copies(own_state(method))
            change()
            keep_if(self._refused, own_state(method), before)
        elif not self._refused:
            change()

    def _count(self, losses: tuple[Tensor, ...], reason: str, step: int) -> None:
        values = [loss.item() for loss in losses if not loss.isfinite()]
        reason = f"the loss is {values[0]} at step {step}" if values else reason
        self._in_a_row += 1
        if not self.skip:
            raise NotFiniteError(f"{reason}; {ADVICE}")
        if self._in_a_row > self.limit:
            raise NotFiniteError(f"{reason}, after {self.limit} steps in a row that were left out for it; {ADVICE}")
        self.skipped += 1
        logger.warning(f"{reason}; the step is left out (trainer.not_finite: skip)")

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped = int(state["skipped"])

    def _end(self) -> None:
        self._losses.clear()
        self._buffers = {}


class Arriving:
    """A number that is on its way from a GPU, and is read without waiting for what the GPU was asked for after it."""

    def __init__(self, x: Bool[Tensor, ""]) -> None:
        self._event = None
        self._x = x
        if x.device.type == "cuda":
            self._x = torch.empty_like(x, device="cpu", pin_memory=True).copy_(x, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def value(self) -> bool:
        if self._event is not None:
            self._event.synchronize()
        return bool(self._x)


class _Unheard(NamedTuple):
    step: int
    losses: tuple[Tensor, ...]
    refused: Arriving


def keep_if(refused: Bool[Tensor, ""], now: dict[str, Tensor], before: dict[str, Tensor]) -> None:
    """Write `before` into the tensors of `now`, in place, if a step was refused; on a GPU without asking it."""
    for name, x in now.items():
        x.copy_(torch.where(refused, before[name], x))


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.detach().clone() for name, x in tensors.items()}


def own_state(method: Method) -> dict[str, Tensor]:
    """Weights and buffers but those of its parts that never change."""
    frozen = tuple(f"{part}." for part in method.frozen)
    return {name: x for name, x in method.state_dict().items() if not name.startswith(frozen)}


def buffers(method: Method) -> dict[str, Tensor]:
    """What a forward pass may change: running statistics and the like."""
    named = dict(method.named_buffers())
    return {name: x for name, x in own_state(method).items() if name in named}
