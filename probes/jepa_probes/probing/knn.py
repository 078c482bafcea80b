"""k-nearest-neighbor probe: cosine similarity between clip embeddings, votes weighted as in DINO (arXiv 2104.14294).

k is the one of the highest accuracy on holdout-out training episodes; of equal ones the largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from jepa.config import Component
from jepa.config.fields import Count, Positive
from jepa_probes.probing.base import ClassProbe, FittedProbe
from jepa_probes.probing.features import clip_embedding, split_episodes
from jepa_probes.probing.reduction import Reduction


class NeighborProbe(ClassProbe):
    """Remembers the training clips. Embeddings are standardized: angles are about the training mean."""

    class Config(Component):
        """Votes of the nearest training clips."""

        kind: Literal["knn"] = "knn"
        neighbors: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
            default=(1, 5, 10, 20, 50), description="numbers of neighbors to choose from"
        )
        temperature: Positive = Field(default=0.07, description="the lower, the more the nearest of them count")  # DINO

    config: Config

    def fit(
        self,
        latents: Float[Tensor, "n S N D"],
        target: Int[Tensor, " n"],
        keys: Sequence[str],
        classes: int,
        *,
        seed: int,
    ) -> "FittedNeighbors":
        temperature = self.config.temperature
        embedding = clip_embedding(latents)
        reduction = Reduction.fit(embedding)
        bank = F.normalize(reduction(embedding), dim=-1)
        fit, holdout = split_episodes(keys, seed=seed)
        similarity = bank[holdout] @ bank[fit].T
        possible = [k for k in self.config.neighbors if k <= len(fit)] or [len(fit)]
        right = {
            k: int((_vote(similarity, target[fit], classes, k, temperature) == target[holdout]).sum()) for k in possible
        }
        k = max(right, key=lambda k: (right[k], k))
        return FittedNeighbors(reduction, bank, target, classes, k, temperature)


@dataclass(frozen=True)
class FittedNeighbors(FittedProbe):
    """All training clips, and how many of them vote."""

    reduction: Reduction
    bank: Float[Tensor, "n Q"]
    target: Int[Tensor, " n"]
    classes: int
    k: int
    temperature: float

    def __call__(self, latents: Float[Tensor, "m S N D"]) -> Int[Tensor, " m"]:
        queries = F.normalize(self.reduction(clip_embedding(latents)), dim=-1)
        return _vote(queries @ self.bank.T, self.target, self.classes, self.k, self.temperature)

    @property
    def chosen(self) -> dict[str, Any]:
        return {"k": self.k}


def _vote(
    similarity: Float[Tensor, "m n"], target: Int[Tensor, " n"], classes: int, k: int, temperature: float
) -> Int[Tensor, " m"]:
    nearest = similarity.topk(k, dim=1)
    votes = F.one_hot(target[nearest.indices], classes) * (nearest.values / temperature).exp()[..., None]
    return votes.sum(1).argmax(1)
