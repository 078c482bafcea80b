"""Reductions one after the other, as in pool:4x4+pca:32, and their fit to the latents of training clips."""

import time
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.config.errors import did_you_mean
from jepa.encoders.reductions import REDUCTIONS
from jepa.encoders.reductions.base import Reduction, ReductionConfig, TokenLayout


class Chain(nn.Module):
    """Reductions in sequence; each takes the tokens of the one before.

    Attributes: layout, of the tokens that the last one gives.

    Raises:
        ValueError: one does not fit the tokens before it.
    """

    def __init__(self, configs: Sequence[ReductionConfig], layout: TokenLayout) -> None:
        super().__init__()
        made: list[Reduction] = []
        for config in configs:
            made.append(REDUCTIONS.make(config, layout))
            layout = made[-1].layout
        self.parts = nn.ModuleList(made)
        self.layout = layout

    @property
    def reductions(self) -> list[Reduction]:
        return list(self.parts)  # pyright: ignore[reportReturnType] - ModuleList forgets its type

    def forward(self, z: Float[Tensor, "*batch N D"]) -> Float[Tensor, "*batch M E"]:
        for reduction in self.reductions:
            z = reduction(z)
        return z

    def expand(self, reduced: Float[Tensor, "*batch M E"]) -> Float[Tensor, "*batch N D"]:
        """What is left of the tokens, in their old layout."""
        for reduction in reversed(self.reductions):
            reduced = reduction.expand(reduced)
        return reduced

    def observe(self, z: Float[Tensor, "R N D"], number: int) -> None:
        """Show latents to one of the reductions, after those before it."""
        for reduction in self.reductions[:number]:
            z = reduction(z)
        self.reductions[number].observe(z)


@torch.no_grad()
def fit(chains: Sequence[Chain], passes: Callable[[], Iterable[Float[Tensor, "R N D"]]]) -> list[float]:
    """Fit all reductions that are fitted, each to what those before it give.

    Args:
        passes: yields the training latents in batches, again at each call: once for each reduction of a chain.

    Returns:
        Seconds spent on each chain, without those that `passes` takes.

    Raises:
        ValueError: there are too few latents.
    """
    seconds = [0.0] * len(chains)
    for number in range(max((len(chain.reductions) for chain in chains), default=0)):
        waiting = [
            index
            for index, chain in enumerate(chains)
            if number < len(chain.reductions) and chain.reductions[number].from_data
        ]
        for z in passes() if waiting else ():
            for index in waiting:
                began = time.perf_counter()
                chains[index].observe(z, number)
                seconds[index] += time.perf_counter() - began
        for index in waiting:
            began = time.perf_counter()
            chains[index].reductions[number].finish()
            seconds[index] += time.perf_counter() - began
    return seconds


def parse(text: str) -> tuple[ReductionConfig, ...]:
    """The settings of `pool:4x4+pca:32`. Raises ValueError naming what is wrong and what was expected."""
    configs = []
    for part in text.split("+"):
        kind, _, size = part.strip().partition(":")
        if kind not in REDUCTIONS:
            hint = did_you_mean(kind, REDUCTIONS)
            raise ValueError(f"expected KIND:SIZE of the kinds {', '.join(REDUCTIONS)}, found '{part}'{hint}")
        config = REDUCTIONS.config(kind)
        assert issubclass(config, ReductionConfig)
        configs.append(config.parse(size))
    return tuple(configs)


def short(configs: Sequence[ReductionConfig]) -> str:
    """What `parse` reads."""
    return "+".join(config.short for config in configs)


def variance_kept(latents: Float[Tensor, "*batch N D"], restored: Float[Tensor, "*batch N D"]) -> float:
    """Share of the variance of latents that is left in others: 1 - variance of the difference over that of latents.

    Both about the mean of each place and channel, summed over these: a constant difference loses nothing.
    """
    total = latents.flatten(0, -3).var(0, correction=0).double().sum()
    lost = (latents - restored).flatten(0, -3).var(0, correction=0).double().sum()
    return float(1 - lost / total) if total > 0 else 1.0
