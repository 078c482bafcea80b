"""Plans under dynamics that predict a distribution: several sampled futures of each plan.

    cost of a plan = mean, lowest (best) or highest (worst) cost over F futures, each with its own noise

The noise is the same for all plans and episodes, so that plans differ by their actions alone, and the cost of a plan
does not depend on the others. Without futures a plan has one, the mean or most likely one of the dynamics.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Outlook = Literal["mean", "best", "worst"]


@dataclass(frozen=True)
class Futures:
    """Futures to imagine for each plan.

    Attributes:
        noise: standard normal numbers that sample them, for as many steps as the longest plan.
        outlook: which of the F costs counts: their mean, the lowest (best) or the highest (worst).

    Raises:
        ValueError: there is no future.
    """

    noise: Float[Tensor, "F H N D"]
    outlook: Outlook = "mean"

    def __post_init__(self) -> None:
        if not len(self.noise):
            raise ValueError("a plan needs one future or more, found none")

    def __len__(self) -> int:
        return len(self.noise)

    def of(self, actions: Float[Tensor, "B K H A"]) -> tuple[Float[Tensor, "B G H A"], Float[Tensor, "B G H N D"]]:
        """G = K*F plans with their noise: every plan once for each future.

        Raises:
            ValueError: the plan is longer than the noise.
        """
        batch, plans, horizon = actions.shape[:3]
        if horizon > self.noise.shape[1]:
            raise ValueError(f"there is noise for {self.noise.shape[1]} steps, and a plan has {horizon}")
        noise = self.noise[:, :horizon].to(actions).repeat(plans, 1, 1, 1)
        return actions.repeat_interleave(len(self), 1), noise.expand(batch, *noise.shape)

    def counted(self, costs: Float[Tensor, "B G"]) -> Float[Tensor, "B K"]:
        """The cost of each plan from those of its futures."""
        each = costs.unflatten(1, (-1, len(self)))
        if self.outlook == "mean":
            return each.mean(-1)
        return each.amin(-1) if self.outlook == "best" else each.amax(-1)


def standard_normal(count: int, horizon: int, tokens: int, width: int, seed: int) -> Float[Tensor, "F H N D"]:
    """Noise of `count` futures; the same seed gives the same noise."""
    return torch.randn(count, horizon, tokens, width, generator=torch.Generator().manual_seed(seed))
