"""Principal components of tokens, one by one (`pca`) or of all tokens of a step together (`joint_pca`).

    pca        each token [D] about the mean of its place ──→ the E directions in which tokens vary most   [N, E]
    joint_pca  all tokens [N D] about their mean          ──→ the E directions in which steps vary most    [1, E]

The covariance is exact: its sums over the training clips are taken in fp64. What is constant in a place, as position
codes are, is taken off first, so that no component is spent on it. Components are orthogonal and are not whitened: all
are divided by one number, which makes their mean variance 1, so distances stay what they were but for what is left out.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.config.fields import Count
from jepa.encoders.reductions.base import Covariance, Reduction, ReductionConfig, TokenLayout

MAX_JOINT = 4096  # numbers of a step: the covariance takes 128 MiB, its components some ten seconds


class _Components(Reduction):
    """What both have in common. Before `finish`, the components are random directions.

    Attributes: mean, basis [F, E] with orthogonal columns, scale.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, width: int, available: int, short: str) -> None:
        super().__init__()
        if width > available:
            raise ValueError(f"{short}: expected at most the {available} numbers that there are; choose fewer")
        self.register_buffer("basis", nn.init.orthogonal_(torch.empty(available, width)))
        self.register_buffer("scale", torch.ones(()))
        self._sums = Covariance()

    def finish(self) -> None:
        sums = self._sums
        self._sums = Covariance()
        covariance = sums.covariance()
        columns = sums.mean().shape[1]
        rows = sums.steps * columns
        if rows <= self.basis.shape[1]:
            raise ValueError(
                f"{self.config.short}: expected more than {self.basis.shape[1]} training latents to fit to, found "
                f"{rows}; keep fewer, or give more clips"
            )
        variance, axes = torch.linalg.eigh(covariance / columns)
        kept = axes.flip(1)[:, : self.basis.shape[1]]
        signs = kept.gather(0, kept.abs().argmax(0, keepdim=True)).sign()  # the largest entry of each is positive
        spread = variance.flip(0)[: kept.shape[1]].clamp(min=0).mean().sqrt()
        self.basis.copy_(kept * signs)
        self.scale.copy_(torch.where(spread > 0, spread, 1.0))
        self.mean.copy_(sums.mean().T.reshape(self.mean.shape))

    def _reduced(self, z: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch E"]:
        return (z - self.mean) @ self.basis / self.scale

    def _expanded(self, reduced: Float[Tensor, "*batch E"]) -> Float[Tensor, "*batch D"]:
        return (reduced * self.scale) @ self.basis.T + self.mean


class PCA(_Components):
    """`width` components of every token; places stay where they are."""

    class Config(ReductionConfig):
        """Principal components of each token."""

        kind: Literal["pca"] = "pca"
        width: Count

    def __init__(self, config: Config, layout: TokenLayout) -> None:
        super().__init__(config.width, layout.width, config.short)
        self.config = config
        self.layout = TokenLayout(layout.tokens, config.width, layout.grid)
        self.register_buffer("mean", torch.zeros(layout.tokens, layout.width))

    def observe(self, z: Float[Tensor, "R N D"]) -> None:
        self._sums.add(z.transpose(1, 2))

    def forward(self, z: Float[Tensor, "*batch N D"]) -> Float[Tensor, "*batch N E"]:
        return self._reduced(z)

    def expand(self, reduced: Float[Tensor, "*batch N E"]) -> Float[Tensor, "*batch N D"]:
        return self._expanded(reduced)


class JointPCA(_Components):
    """One vector of `width` components of all tokens of a step."""

    class Config(ReductionConfig):
        """Principal components of all tokens of a step together: one vector."""

        kind: Literal["joint_pca"] = "joint_pca"
        width: Count

    def __init__(self, config: Config, layout: TokenLayout) -> None:
        numbers = layout.tokens * layout.width
        if numbers > MAX_JOINT:
            raise ValueError(
                f"{config.short}: expected at most {MAX_JOINT} numbers a step, found {layout.tokens} x {layout.width}; "
                f"reduce the tokens first, as in pca:{max(1, MAX_JOINT // layout.tokens)}+{config.short}"
            )
        super().__init__(config.width, numbers, config.short)
        self.config = config
        self.places = (layout.tokens, layout.width)
        self.layout = TokenLayout(1, config.width, (1, 1))
        self.register_buffer("mean", torch.zeros(numbers))

    def observe(self, z: Float[Tensor, "R N D"]) -> None:
        self._sums.add(z.flatten(1)[..., None])

    def forward(self, z: Float[Tensor, "*batch N D"]) -> Float[Tensor, "*batch 1 E"]:
        return self._reduced(z.flatten(-2))[..., None, :]

    def expand(self, reduced: Float[Tensor, "*batch 1 E"]) -> Float[Tensor, "*batch N D"]:
        return self._expanded(reduced[..., 0, :]).unflatten(-1, self.places)
