"""What happens to a step whose loss or gradient is NaN or infinite. Nothing of it is applied, whatever the policy.

    stop        the run ends with an error
    skip        the step is left out and counted; after `limit` steps in a row the run ends with an error
    roll_back   the run goes on from its last checkpoint with its data in another order (jepa.training.pretrain)

A loss that is not finite turns all gradients into NaN, also those of other processes, with which they are averaged. So
one look at the norm of the gradients, which is needed for clipping anyhow, finds both, and all processes decide alike.
"""

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
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
        skipped: steps left out so far.
        applied: whether the last step was applied.
    """

    skip: bool = False
    limit: int = 1
    skipped: int = 0
    applied: bool = True
    _in_a_row: int = 0
    _losses: list[Tensor] = field(default_factory=list)  # of the batches of one step
    _buffers: dict[str, Tensor] = field(default_factory=dict)  # before it

    def before(self, method: Method) -> None:
        """Called before each forward pass: the first of a step finds the statistics that a refused step gives back."""
        if not self._losses:
            self._buffers = {name: x.clone() for name, x in buffers(method).items()}

    def spread(self, loss: Tensor) -> Tensor:
        """The loss; one that is not finite with NaN for every gradient."""
        self._losses.append(loss.detach())
        return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)

    def accept(self) -> None:
        """The gradients of the step are finite."""
        self._end()
        self.applied = True
        self._in_a_row = 0

    def refuse(self, error: NotFiniteError, method: Method, step: int) -> None:
        """Give back the statistics.

        Raises:
            NotFiniteError: such steps are not left out, or there were too many in a row.
        """
        values = [loss.item() for loss in self._losses if not loss.isfinite()]
        reason = f"the loss is {values[0]} at step {step}" if values else str(error)
        for name, x in buffers(method).items():
            x.copy_(self._buffers[name])
        self._end()
        self.applied = False
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


def buffers(method: Method) -> dict[str, Tensor]:
    """What a forward pass may change: running statistics and the like."""
    names = method.state_dict().keys()
    frozen = tuple(f"{part}." for part in method.frozen)
    return {name: x for name, x in method.named_buffers() if name in names and not name.startswith(frozen)}
