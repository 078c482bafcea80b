"""Numbers of any scale (actions, states) at zero mean and unit variance: inside the model, so that all else speaks raw.

raw ──(x - mean) / std──> what a predictor embeds         mean and std are buffers: they lie in the model's file
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.events import EventLayout
from jepa.ranks import mean_over_ranks

MIN_WEIGHT = 1e-3  # of a batch in a running mean
MIN_STD = 1e-6  # a number that hardly varies, beside 1 and beside its mean, is shifted, and not blown up


@dataclass(frozen=True)
class NormalizationStats:
    """Mean and standard deviation of each number, over what a run is trained on."""

    mean: Float[Tensor, " X"]
    std: Float[Tensor, " X"]


class Standardize(nn.Module):
    """(x - mean) / std, number by number; before `fit` it changes nothing.

    Args:
        size: numbers.

    Attributes:
        events: where events stand in actions, which are completed with them first; None: there are none.
    """

    mean: Tensor
    std: Tensor
    events: EventLayout | None = None

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, stats: NormalizationStats) -> None:
        """Take these stats; those of one raw action serve all that stand side by side in a block. Events have none.

        Raises:
            ValueError: they are not finite, or the numbers do not divide into so many.
        """
        size = len(self.mean) if self.events is None else self.events.plain_width
        width = len(stats.mean)
        if not width or size % width:
            raise ValueError(f"stats of {width} numbers do not fit the {size} that are standardized")
        if not (stats.mean.isfinite().all() and stats.std.isfinite().all()):
            raise ValueError("stats are finite; some of these numbers are missing (NaN) in all of the data")
        self._take(stats.mean, stats.std)

    def _take(self, mean: Float[Tensor, " W"], std: Float[Tensor, " W"]) -> None:
        size = len(self.mean) if self.events is None else self.events.plain_width
        varies = std > MIN_STD * mean.abs().clamp_min(1)
        mean, std = (x.repeat(size // len(mean)) for x in (mean, torch.where(varies, std, 1.0)))
        if self.events is not None:  # columns of events stay 0 and 1
            mean, std = self.events.complete(mean), 1 + self.events.complete(std - 1)
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, x: Float[Tensor, "*batch W"]) -> Float[Tensor, "*batch X"]:
        if self.events is not None:
            x = self.events.complete(x)
        return (x - self.mean) / self.std

    def inverse(self, x: Float[Tensor, "*batch X"]) -> Float[Tensor, "*batch X"]:
        return x * self.std + self.mean


class RunningStandardize(Standardize):
    """`Standardize` that is fitted by the batches of training: a mean over all of them at first, later a moving one."""

    batches: Tensor

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, x: Float[Tensor, "*batch X"]) -> None:
        """Count the mean and the variance of one more batch, which is that of all ranks, without a look at them."""
        self.batches += 1
        weight = (1 / self.batches).clamp_min(MIN_WEIGHT)
        x = x.detach().float().flatten(0, -2)
        own = x.mean(0)
        mean = mean_over_ranks(own)
        variance = mean_over_ranks(x.var(0, unbiased=False) + (own - mean).square())
        # Of the mixture: the variances, and that of the two means. The first batch has the weight 1.
        variance = self.std.square().lerp(variance, weight) + weight * (1 - weight) * (mean - self.mean).square()
        self._take(self.mean.lerp(mean, weight), variance.sqrt())


class NotNormalized(nn.Identity):
    """In the place of `Standardize` where numbers stay as they are: it leaves no buffer in the model's file."""

    events: EventLayout | None = None

    def forward(self, x: Tensor) -> Tensor:
        return x if self.events is None else self.events.complete(x)

    def inverse(self, x: Tensor) -> Tensor:
        return x


def standardize(size: int, wanted: bool) -> Standardize | NotNormalized:
    """What is put before an embedding of `size` numbers."""
    return Standardize(size) if wanted else NotNormalized()
