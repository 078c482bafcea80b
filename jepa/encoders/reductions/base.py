"""The base classes of reductions: what their settings, their shapes and their fit have in common.

    z [R, N, D] of the training clips, batch by batch ──→ observe ──→ finish
    z […, N, D] ──→ forward ──→ […, M, E] ──→ expand ──→ […, N, D], what is left of z

In short, a reduction is written as its kind and what it keeps: pool:2x2, merge:16, pca:32, joint_pca:64.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.config import Component


class ReductionConfig(Component):
    """Settings of a reduction: its kind, and the numbers that it keeps."""

    @classmethod
    def parse(cls, size: str) -> Self:
        """The settings of `size`, what stands after `KIND:`. Raises ValueError if it is something else."""
        names = [name for name in cls.model_fields if name != "kind"]
        kind = cls.model_fields["kind"].default
        numbers = size.split("x")
        if len(numbers) != len(names) or not all(n.isascii() and n.isdigit() and int(n) > 0 for n in numbers):
            form = "x".join(name.upper() for name in names)
            raise ValueError(f"expected {kind}:{form} in whole numbers, found '{kind}:{size}'")
        return cls.model_validate({name: int(n) for name, n in zip(names, numbers, strict=True)})

    @property
    def short(self) -> str:
        """The form that `parse` reads, with its kind: pool:2x2."""
        return f"{self.kind}:" + "x".join(str(value) for name, value in self if name != "kind")


@dataclass(frozen=True)
class TokenLayout:
    """N tokens of width D, and the rows and columns that they lie in; None if they have no places in the image."""

    tokens: int
    width: int
    grid: tuple[int, int] | None

    @classmethod
    def square(cls, tokens: int, width: int) -> Self:
        """Of the tokens of a square image, row by row."""
        side = round(tokens**0.5)
        return cls(tokens, width, (side, side) if side * side == tokens else None)


class Reduction(nn.Module, ABC):
    """A linear map of the tokens of a latent step, fitted to latents of training clips, without labels.

    `__init__` takes the config and the layout of the tokens. It raises ValueError if they do not fit together.

    Attributes:
        layout: of the tokens that it gives.
        from_data: whether it has something to fit.
    """

    Config: type[ReductionConfig] = ReductionConfig
    config: Any  # of its own Config
    layout: TokenLayout
    from_data: ClassVar[bool] = True

    @abstractmethod
    def forward(self, z: Float[Tensor, "*batch N D"]) -> Float[Tensor, "*batch M E"]:
        """Reduce the tokens of every step."""

    @abstractmethod
    def expand(self, reduced: Float[Tensor, "*batch M E"]) -> Float[Tensor, "*batch N D"]:
        """Tokens of the old layout that are nearest to the original ones, up to a constant of each place."""

    def observe(self, z: Float[Tensor, "R N D"]) -> None:
        """Add a batch of training latents."""

    def finish(self) -> None:
        """Fit to all that was observed. Raises ValueError if that is too little."""


class Averaging(Reduction):
    """A reduction whose tokens are means over disjoint sets of places.

    Attributes: average [M, N], the share of each place in each token.
    """

    average: Tensor

    def forward(self, z: Float[Tensor, "*batch N D"]) -> Float[Tensor, "*batch M D"]:
        return self.average @ z

    def expand(self, reduced: Float[Tensor, "*batch M D"]) -> Float[Tensor, "*batch N D"]:
        """Every place gets the token that it is part of."""
        return (self.average > 0).to(reduced).T @ reduced


def averages(token_of_place: Tensor, tokens: int) -> Float[Tensor, "M N"]:
    """The matrix `Averaging.average` for the token [N] of each place."""
    member = (token_of_place == torch.arange(tokens, device=token_of_place.device)[:, None]).float()
    return member / member.sum(1, keepdim=True)


class Covariance:
    """Sums over steps, in fp64, from which covariances are exact: those of F features, summed over W columns.

    Each column of each feature is taken about its own mean over the steps: what never changes counts for nothing.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._total: Tensor | float = 0.0  # [F, W]
        self._products: Tensor | float = 0.0  # [F, F]

    def add(self, x: Float[Tensor, "R F W"]) -> None:
        x = x.double()
        side = x.transpose(0, 1).flatten(1)
        self.steps += len(x)
        self._total = self._total + x.sum(0)
        self._products = self._products + side @ side.T

    def mean(self) -> Float[Tensor, "F W"]:
        assert isinstance(self._total, Tensor), "add comes first"
        return self._total / self.steps

    def covariance(self) -> Float[Tensor, "F F"]:
        """Mean over the steps, sum over the columns."""
        mean = self.mean()
        return self._products / self.steps - mean @ mean.T
