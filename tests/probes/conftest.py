"""Features whose content is known: a small world of two discs, and latents that hold what a test puts there."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jepa_probes.probing.features import Features

NAMES = tuple(f"{disc}.{what}" for disc in ("puck", "body0") for what in ("x", "y", "vx", "vy", "visible", "contact"))


def _world(episodes: int, seed: int, *, steps: int = 10, absent: float = 0.0) -> Tensor:
    """States [E, S, X] of two discs on straight paths; body0 is hidden where x > 0.6, and absent in some episodes."""
    g = torch.Generator().manual_seed(seed)
    discs = []
    for _ in range(2):
        start, velocity = torch.rand(episodes, 1, 2, generator=g), torch.randn(episodes, 1, 2, generator=g)
        position = start + 0.1 * velocity * torch.arange(steps)[:, None]
        visible = (position[..., :1] <= 0.6).float()
        discs.append(torch.cat([position, velocity.expand_as(position), visible, torch.zeros_like(visible)], -1))
    gone = torch.rand(episodes, generator=g) < absent
    discs[1][gone] = torch.nan
    return torch.cat(discs, -1)


def _features(
    latents: Tensor, states: Tensor | None = None, labels: dict[str, Tensor] | None = None, *, start: int = 0
) -> Features:
    """Latents [E, S, N, D] as the features of episodes `start`, `start` + 1, ..."""
    episodes, steps = latents.shape[:2]
    told = states is not None
    return Features(
        latents,
        states if told else torch.empty(episodes, steps, 0),
        labels or {},
        tuple(f"episode-{start + i}" for i in range(episodes)),
        NAMES if told else (),
    )


@pytest.fixture(scope="session")
def world() -> Callable[..., Tensor]:
    return _world


@pytest.fixture(scope="session")
def features() -> Callable[..., Features]:
    return _features
