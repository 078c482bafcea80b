"""k-nearest-neighbor probe: cosine similarity between clip embeddings, votes weighted as in DINO (arXiv 2104.14294).

k is the one of the highest accuracy on held-out training episodes; of equal ones the largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from jepa_probes.probing.features import split_episodes
from jepa_probes.probing.reduction import Reduction

NEIGHBOURS = (1, 5, 10, 20, 50)
TEMPERATURE = 0.07  # DINO


@dataclass(frozen=True)
class NeighborProbe:
    """All training clips, and how many of them vote."""

    reduction: Reduction
    bank: Float[Tensor, "n Q"]
    target: Int[Tensor, " n"]
    classes: int
    k: int

    def __call__(self, embedding: Float[Tensor, "m F"]) -> Int[Tensor, " m"]:
        queries = F.normalize(self.reduction(embedding), dim=-1)
        return _vote(queries @ self.bank.T, self.target, self.classes, self.k)


def fit_knn(
    embedding: Float[Tensor, "n F"], target: Int[Tensor, " n"], keys: Sequence[str], classes: int, *, seed: int = 0
) -> NeighborProbe:
    """Remember the training clips, and choose k. Embeddings are standardized: angles are about the training mean."""
    reduction = Reduction.fit(embedding)
    bank = F.normalize(reduction(embedding), dim=-1)
    fit, holdout = split_episodes(keys, seed=seed)
    similarity = bank[holdout] @ bank[fit].T
    right = {
        k: int((_vote(similarity, target[fit], classes, k) == target[holdout]).sum())
        for k in NEIGHBOURS
        if k <= len(fit)
    }
    k = max(right, key=lambda k: (right[k], k))
    return NeighborProbe(reduction, bank, target, classes, k)


def _vote(similarity: Float[Tensor, "m n"], target: Int[Tensor, " n"], classes: int, k: int) -> Int[Tensor, " m"]:
    nearest = similarity.topk(k, dim=1)
    votes = F.one_hot(target[nearest.indices], classes) * (nearest.values / TEMPERATURE).exp()[..., None]
    return votes.sum(1).argmax(1)
