"""Features to a width that a probe can be solved in: principal components where there are too many, then unit variance.

Fitted on training rows only. Ridge does not care about rotations, so what is lost is the directions that are left out,
and nothing else.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

WIDEST = 1024
# Rows that span the components when features are wider than this: exact on these, evenly spaced over the set. Steps
# next to each other are nearly equal, so the others would add little (R² of pixels: 0.79 with 4,000 as with 1,536).
ROWS = 1536
COLUMNS_AT_ONCE = 8192  # an fp64 copy of all rows would take twice the memory of the features
FLOOR = 1e-4  # of the largest standard deviation; below it a feature is constant but for rounding


@dataclass(frozen=True)
class Reduction:
    """x -> (x - mean) @ basis / scale, each output about unit variance on the training rows."""

    mean: Float[Tensor, " F"]
    basis: Float[Tensor, "F Q"] | None
    scale: Float[Tensor, " Q"]

    @classmethod
    def fit(cls, rows: Float[Tensor, "n F"], components: int = WIDEST) -> "Reduction":
        """At most `components` outputs; as many as there are features if those are fewer."""
        mean = rows.mean(0)
        if rows.shape[1] <= components:
            return cls(mean, None, _floored(rows.std(0, correction=0)))
        basis, deviation = principal_components(rows - mean, components)
        return cls(mean, basis, _floored(deviation))

    def __call__(self, x: Float[Tensor, "*rows F"]) -> Float[Tensor, "*rows Q"]:
        x = x - self.mean
        if self.basis is not None:
            x = x @ self.basis
        return x / self.scale


def principal_components(
    centered: Float[Tensor, "n F"], components: int
) -> tuple[Float[Tensor, "F Q"], Float[Tensor, " Q"]]:
    """The first `components` directions, strongest first, and the standard deviation along each.

    There are no more than the features, or the rows they are computed from, can span.
    """
    n, width = centered.shape
    if width <= ROWS:
        values, vectors = torch.linalg.eigh(_gram(centered.T) / n)
        keep = min(components, n, width)
        return vectors.flip(1)[:, :keep].float(), values.flip(0)[:keep].clamp(min=0).sqrt().float()
    rows = centered[torch.linspace(0, n - 1, min(n, ROWS)).long()]
    values, vectors = torch.linalg.eigh(_gram(rows))
    lengths = values.flip(0)[:components].clamp(min=0).sqrt()
    # Centering costs one direction, equal rows cost more; of constant features one is kept, as zeros.
    lengths = lengths[: max(1, int((lengths > 1e-6 * lengths[0]).sum()))]
    basis = rows.T @ (vectors.flip(1)[:, : len(lengths)] / lengths.clamp(min=1e-12)).float()
    return basis, (lengths / len(rows) ** 0.5).float()


def _gram(rows: Float[Tensor, "n F"]) -> Float[Tensor, "n n"]:
    """Inner products in fp64: rounded to fp32, directions below 3e-4 of the strongest are noise."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in rows.split(COLUMNS_AT_ONCE, 1):
        gram += part.double() @ part.double().T
    return gram


def _floored(deviation: Float[Tensor, " Q"]) -> Float[Tensor, " Q"]:
    """What outputs are divided by: infinity, so that they are 0, where rounding would pass for a feature."""
    return torch.where(deviation > max(FLOOR * float(deviation.max()), 1e-12), deviation, torch.inf)
