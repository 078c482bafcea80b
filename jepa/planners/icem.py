"""iCEM: the cross-entropy method with colored noise and kept elites (Pinneri et al., arXiv 2008.06389).

What differs from CEM: noise is correlated over time (power 1/f^beta), some of the elites stay in the next round, the
population shrinks by `decay`, and mean and std move towards the elites' by 1 - momentum.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.planners.base import Plan, Search, check, choose, draw
from jepa.planners.cost import Cost


@dataclass(frozen=True)
class ICEM:
    """Attributes as in CEM, and

    Attributes:
        beta: color of the noise: 0 white, 1 pink, 2 red; larger for worlds in which a push must last.
        keep: share of the elites that stay candidates.
        decay: the next population is this many times smaller, but never below twice the elites.
        momentum: of mean and std.
    """

    samples: int = 100
    elites: int = 10
    iterations: int = 4
    std: float = 0.7
    min_std: float = 0.05
    beta: float = 2.0
    keep: float = 0.3
    decay: float = 1.25
    momentum: float = 0.1
    cost_tolerance: float | None = None
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check(self.samples, self.elites, self.iterations)
        if not 0 <= self.keep <= 1 or self.decay < 1 or not 0 <= self.momentum < 1:
            raise ValueError(
                "iCEM needs keep in 0..1, decay of at least 1 and momentum in 0..1; found "
                f"{self.keep}, {self.decay}, {self.momentum}"
            )

    @torch.no_grad()
    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        """See `Planner`."""
        search = Search(cost, start, self.low, self.high)
        mean, std = search.start, torch.full_like(start, self.std)
        kept = mean[:, None]  # the start stays a candidate
        for number in range(self.iterations):
            count = max(2 * self.elites, round(self.samples / self.decay**number))
            noise = colored((len(start), count, *start.shape[1:]), self.beta, start, generator)
            fresh = search.bounded(mean[:, None] + std[:, None] * noise)
            actions = torch.cat((mean[:, None], kept, fresh), 1)
            elites = choose(actions, search(actions).topk(self.elites, dim=1, largest=False).indices)
            kept = elites[:, : max(1, round(self.keep * self.elites))]
            mean = self.momentum * mean + (1 - self.momentum) * elites.mean(1)
            std = (self.momentum * std + (1 - self.momentum) * elites.std(1)).clamp_min(self.min_std)
            if self.cost_tolerance is not None and (search.best <= self.cost_tolerance).all():
                break
        return search.plan()


def colored(
    shape: tuple[int, ...], beta: float, like: Tensor, generator: torch.Generator
) -> Float[Tensor, "*batch H A"]:
    """Gaussian noise of unit variance whose power falls with frequency f as 1/f^beta along the horizon."""
    *batch, horizon, width = shape
    count = horizon // 2 + 1
    frequency = torch.fft.rfftfreq(horizon).clamp_min(1 / horizon)  # the mean is as strong as the slowest wave
    scale = frequency ** (-beta / 2)
    real, imaginary = (draw((*batch, width, count), like, generator) * scale.to(like) for _ in range(2))
    imaginary[..., 0] = 0.0
    real[..., 0] *= 2**0.5
    power = scale.square().clone()
    if horizon % 2 == 0:
        imaginary[..., -1] = 0.0
        real[..., -1] *= 2**0.5
        power[-1] /= 2
    power[0] /= 2
    noise = torch.fft.irfft(torch.complex(real, imaginary), n=horizon, dim=-1)
    return (noise / (2 * power.sum().sqrt() / horizon)).transpose(-1, -2)
