"""Linear probe: multinomial logistic regression on one vector per clip, full-batch L-BFGS.

The L2 penalty is the one of the lowest cross-entropy on holdout-out training episodes; the probe is then fitted on all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from jepa.config import Component
from jepa.config.fields import Count, Positive
from jepa_probes.probing.base import ClassProbe, FittedProbe
from jepa_probes.probing.features import clip_embedding, split_episodes
from jepa_probes.probing.reduction import Reduction


class LinearProbe(ClassProbe):
    """Logistic regression on the mean over all tokens of a clip."""

    class Config(Component):
        """Logistic regression on one vector per clip."""

        kind: Literal["linear"] = "linear"
        penalties: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
            default=(1.0, 0.1, 0.01, 0.001),
            description="to choose from, the strongest first: each starts from the solution of the one before",
        )
        components: Count = Field(default=1024, description="principal components, at most")
        iterations: Count = Field(default=60, description="of L-BFGS, for each penalty")

    config: Config

    def fit(
        self,
        latents: Float[Tensor, "n S N D"],
        target: Int[Tensor, " n"],
        keys: Sequence[str],
        classes: int,
        *,
        seed: int,
    ) -> "FittedLinear":
        embedding = clip_embedding(latents)
        # Rows span at most n directions, so this many components lose nothing.
        reduction = Reduction.fit(embedding, min(self.config.components, len(embedding)))
        x = reduction(embedding)
        fit, holdout = split_episodes(keys, seed=seed)
        zeros = torch.zeros(x.shape[1] + 1, classes)
        weight = zeros
        losses = dict[float, float]()
        for penalty in self.config.penalties:
            weight = _solve(x[fit], target[fit], weight, penalty, self.config.iterations)
            losses[penalty] = float(F.cross_entropy(_logits(x[holdout], weight), target[holdout]))
        best = min(losses, key=losses.__getitem__)
        return FittedLinear(reduction, _solve(x, target, zeros, best, self.config.iterations), best)


@dataclass(frozen=True)
class FittedLinear(FittedProbe):
    """Class scores are linear in the reduced clip embedding; the last of the R = Q + 1 rows of `weight` is the bias."""

    reduction: Reduction
    weight: Float[Tensor, "R C"]
    penalty: float

    def __call__(self, latents: Float[Tensor, "m S N D"]) -> Int[Tensor, " m"]:
        return _logits(self.reduction(clip_embedding(latents)), self.weight).argmax(1)

    @property
    def chosen(self) -> dict[str, Any]:
        return {"linear_penalty": self.penalty}


def _logits(x: Float[Tensor, "n Q"], weight: Float[Tensor, "R C"]) -> Float[Tensor, "n C"]:
    return x @ weight[:-1] + weight[-1]


def _solve(
    x: Float[Tensor, "n Q"], target: Int[Tensor, " n"], start: Float[Tensor, "R C"], penalty: float, iterations: int
) -> Float[Tensor, "R C"]:
    """argmin cross-entropy + penalty/2 |w|² from `start`; the bias is not penalised."""
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=iterations, tolerance_grad=1e-4, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(_logits(x, weight), target) + penalty / 2 * weight[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach()
