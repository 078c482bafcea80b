"""iCEM: the cross-entropy method with colored noise and kept elites (Pinneri et al., arXiv 2008.06389).

Differences from CEM: noise is correlated over time (power 1/f^beta), some elites are kept for the next iteration, the
population shrinks by `decay`, and mean and std move towards those of the elites by 1 - momentum.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from jepa.config.fields import NonNegative, Positive, Share
from jepa.planners.base import Plan, Planner, SamplingConfig, Search, choose, draw
from jepa.planners.cost import Cost


class ICEM(Planner):
    """CEM with noise that is correlated over time."""

    class Config(SamplingConfig):
        """Settings of CEM, the color of the noise, and the elites kept for the next iteration."""

        kind: Literal["icem"] = "icem"
        beta: NonNegative = Field(
            default=2.0,
            le=10,
            description="color of the noise: 0 white, 1 pink, 2 red; higher values give longer pushes",
        )
        keep: Share = Field(default=0.3, description="share of the elites kept as candidates")
        decay: Positive = Field(
            default=1.25, ge=1, description="factor by which the population shrinks, to at least twice the elites"
        )
        momentum: float = Field(default=0.1, ge=0, lt=1, description="momentum of mean and std")

    @torch.no_grad()
    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        config = self.config
        search = Search(cost, start, self.low, self.high)
        mean, std = search.start, torch.full_like(start, config.std)
        kept = mean[:, None]  # the start stays a candidate
        for number in range(config.iterations):
            count = max(2 * config.elites, round(config.samples / config.decay**number))
            noise = colored((len(start), count, *start.shape[1:]), config.beta, start, generator)
            fresh = search.bounded(mean[:, None] + std[:, None] * noise)
            actions = torch.cat((mean[:, None], kept, fresh), 1)
            elites = choose(actions, search(actions).topk(config.elites, dim=1, largest=False).indices)
            kept = elites[:, : max(1, round(config.keep * config.elites))]
            mean = config.momentum * mean + (1 - config.momentum) * elites.mean(1)
            std = (config.momentum * std + (1 - config.momentum) * elites.std(1)).clamp_min(config.min_std)
            if search.reached(config.cost_tolerance):
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
    real = draw((*batch, width, count), like, generator) * scale.to(like)
    imaginary = draw((*batch, width, count), like, generator) * scale.to(like)
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
