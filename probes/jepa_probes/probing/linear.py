"""Linear probe: multinomial logistic regression on one vector per clip, full-batch L-BFGS.

The L2 penalty is the one of the lowest cross-entropy on held-out training episodes; the probe is then fitted on all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from jepa_probes.probing.features import split_episodes
from jepa_probes.probing.reduction import Reduction

PENALTIES = (1.0, 0.1, 0.01, 0.001)  # strongest first: each starts from the solution of the one before
ITERATIONS = 60


@dataclass(frozen=True)
class LinearProbe:
    """Class scores are linear in the reduced clip embedding; the last of the R = Q + 1 rows of `weight` is the bias."""

    reduction: Reduction
    weight: Float[Tensor, "R C"]
    penalty: float

    def __call__(self, embedding: Float[Tensor, "n F"]) -> Int[Tensor, " n"]:
        return _logits(self.reduction(embedding), self.weight).argmax(1)


def fit_linear(
    embedding: Float[Tensor, "n F"], target: Int[Tensor, " n"], keys: Sequence[str], classes: int, *, seed: int = 0
) -> LinearProbe:
    """Fit on training clips.

    Args:
        target: classes 0 .. classes-1.
        keys: the sample of each clip.
    """
    # Rows span at most n directions, so this many components lose nothing.
    reduction = Reduction.fit(embedding, min(1024, len(embedding)))
    x = reduction(embedding)
    fit, holdout = split_episodes(keys, seed=seed)
    weight, losses = torch.zeros(x.shape[1] + 1, classes), []
    for penalty in PENALTIES:
        weight = _solve(x[fit], target[fit], weight, penalty)
        losses.append(float(F.cross_entropy(_logits(x[holdout], weight), target[holdout])))
    best = min(range(len(PENALTIES)), key=losses.__getitem__)
    return LinearProbe(reduction, _solve(x, target, torch.zeros_like(weight), PENALTIES[best]), PENALTIES[best])


def _logits(x: Float[Tensor, "n Q"], weight: Float[Tensor, "R C"]) -> Float[Tensor, "n C"]:
    return x @ weight[:-1] + weight[-1]


def _solve(
    x: Float[Tensor, "n Q"], target: Int[Tensor, " n"], start: Float[Tensor, "R C"], penalty: float
) -> Float[Tensor, "R C"]:
    """argmin cross-entropy + penalty/2 |w|² from `start`; the bias is not penalised."""
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=ITERATIONS, tolerance_grad=1e-4, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(_logits(x, weight), target) + penalty / 2 * weight[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach()
