"""Reward and continue heads on frozen latents, fitted to recorded episodes of a world with rewards.

    recorded   z0 ─> z1 ─> z2 ─> … zT        each latent with the reward of the step to it, and whether it was the last
    reward     z ──MLP──> logits of 255 symexp bins         two-hot cross-entropy       r(z) = the expected bin
    continue   z ──MLP──> one logit                         binary cross-entropy        c(z) = its sigmoid

Both as in DreamerV3 (2301.04104), except that the world model is frozen. They read only the latent: the cost of an
action is learned only as far as the next latent shows it.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.agents.controller import Latents, ObservationNormalizer, mlp
from jepa.config import Config
from jepa.config.fields import Count, Positive
from jepa.objectives import two_hot

AnyHead = TypeVar("AnyHead", bound=nn.Module)


class HeadSettings(Config):
    """Fit of a head: Adam steps on `batch` latents, for an MLP of `layers` x `hidden` units."""

    updates: Count = 1000
    batch: Count = 256
    lr: Positive = 1e-3
    hidden: Count = 128
    layers: int = Field(default=2, ge=0)


class TwoHotHead(nn.Module):
    """Predicts a number of any scale as a distribution over symexp bins; the initial output is exactly 0."""

    def __init__(self, normalizer: ObservationNormalizer, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.normalizer = normalizer
        self.network = mlp(normalizer.size, hidden, layers, two_hot.BINS)
        nn.init.zeros_(self.network[-1].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.network[-1].bias)  # pyright: ignore[reportArgumentType]
        self.register_buffer("bins", two_hot.symexp_bins(), persistent=False)
        self.bins: Tensor


class RewardHead(TwoHotHead):
    """The reward of the step to a latent."""

    def logits(self, z: Latents) -> Float[Tensor, "B K"]:
        return self.network(self.normalizer(z, z))

    def forward(self, z: Latents) -> Float[Tensor, " B"]:
        return two_hot.decode(self.logits(z), self.bins)


class ContinueHead(nn.Module):
    """The probability that an episode continues at a latent."""

    def __init__(self, normalizer: ObservationNormalizer, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.normalizer = normalizer
        self.network = mlp(normalizer.size, hidden, layers, 1)

    def logits(self, z: Latents) -> Float[Tensor, " B"]:
        return self.network(self.normalizer(z, z))[:, 0]

    def forward(self, z: Latents) -> Float[Tensor, " B"]:
        return self.logits(z).sigmoid()


def fit_reward(
    z: Float[Tensor, "M N D"], rewards: Float[Tensor, " M"], settings: HeadSettings | None = None, seed: int = 0
) -> RewardHead:
    """Fit a head to the rewards of the steps to M latents.

    Raises:
        ValueError: a reward is not finite, or there are none.
    """
    if not len(z) or not rewards.isfinite().all():
        raise ValueError("a reward head is fitted to at least one latent, and to finite rewards only")

    def loss(head: RewardHead, rows: Tensor) -> Tensor:
        return two_hot.cross_entropy(head.logits(z[rows]), rewards[rows], head.bins)

    return _fit(RewardHead, z, loss, settings or HeadSettings(), seed)


def fit_continue(
    z: Float[Tensor, "M N D"], terminated: Bool[Tensor, " M"], settings: HeadSettings | None = None, seed: int = 0
) -> ContinueHead:
    """Fit a head to which of M latents end their episode.

    Raises:
        ValueError: all of them were, or none.
    """
    if not terminated.any() or terminated.all():
        raise ValueError(
            f"a continue head needs ends and other latents, found {int(terminated.sum())} of {len(z)} ends"
        )
    goes_on = (~terminated).float()

    def loss(head: ContinueHead, rows: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(head.logits(z[rows]), goes_on[rows])

    return _fit(ContinueHead, z, loss, settings or HeadSettings(), seed)


def _fit(
    kind: type[AnyHead],
    z: Float[Tensor, "M N D"],
    loss: Callable[[AnyHead, Tensor], Tensor],
    settings: HeadSettings,
    seed: int,
) -> AnyHead:
    """Minimize the loss on random rows by Adam, then freeze the head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = kind(ObservationNormalizer.fitted(z, "latent"), hidden=settings.hidden, layers=settings.layers)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(head.parameters(), settings.lr, fused=True)
    with torch.enable_grad():
        for _ in range(settings.updates):
            optimizer.zero_grad()
            loss(head, torch.randint(len(z), (settings.batch,), generator=generator)).mean().backward()
            optimizer.step()
    return head.eval().requires_grad_(False)
