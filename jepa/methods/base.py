"""What the training module asks of a method. A method is plain torch: it knows neither Lightning nor configs."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.world_model import Dynamics


@dataclass(frozen=True)
class Batch:
    """Clips on the training device, normalized to about zero mean and unit variance.

    `actions[:, t]` takes frame t to frame t+1; None for plain video. `is_image`: which clips repeat one picture.
    `states`: what the body knows of itself at each frame, raw; None for methods that do not ask.
    """

    video: Float[Tensor, "B T C h w"]
    actions: Float[Tensor, "B T-1 A"] | None
    is_image: Bool[Tensor, " B"] | None = None
    states: Float[Tensor, "B T X"] | None = None


@runtime_checkable
class Method(Protocol):
    """One published algorithm: encoder, what it predicts, and its loss."""

    @property
    def encoder(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def dynamics(self) -> Dynamics | None:
        """Action-conditioned prediction, where the method learns one."""
        ...

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars by name; "loss" is minimized, the others are logged. All randomness comes from `generator`."""
        ...

    def after_step(self, step: int, total_steps: int) -> None:
        """Called after each optimizer step (EMA teachers and the like)."""
        ...

    def evaluation_encoder(self) -> nn.Module:
        """The encoder to probe, export and plan with."""
        ...


def weighted_sum(
    terms: dict[str, Tensor], weights: dict[str, float], predicted: Tensor, target: Tensor
) -> dict[str, Tensor]:
    """What `loss` returns: prediction + the weighted other terms, each term, the cosine of prediction and target."""
    total = terms["prediction"] + sum(weight * terms[name] for name, weight in weights.items())
    cosine = F.cosine_similarity(predicted.detach(), target.detach(), dim=-1).mean()
    return {"loss": total, **{name: value.detach() for name, value in terms.items()}, "cosine": cosine}
