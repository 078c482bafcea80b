"""The two networks that a diagnosis fits: one reads true states off latents, one predicts true states.

latents [.., N, D] -> reduction -> MLP -> numbers [.., C]                        the read-out
numbers [.., C], exists [.., F] = z [.., 1, C + F];  z, action -> next z         the dynamics that no encoder limits

Both see what the recordings hold and no more. A body that does not exist is 0 (the mean) in all its numbers, and a flag
tells so, which never changes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from jepa.normalize import NormalizationStats, Standardize
from jepa.predictors.base import LatentState
from jepa.predictors.mlp import MLPPredictor
from jepa.world_model import rollout
from jepa_data.actions import ActionStats
from jepa_probes.diagnosis.quantities import StateCode
from jepa_probes.probing.features import split_episodes
from jepa_probes.probing.reduction import Reduction

BATCH = 256
UNROLL = 3  # latent steps
LR = 2e-3  # of Adam's first step; it falls to 0 along a cosine
REDUCED = 256  # numbers of a latent that the network reads; of wider ones, principal components


class StateRead(nn.Module):
    """True states, standardized, off latents."""

    def __init__(self, reduction: Reduction, hidden: int, numbers: int) -> None:
        super().__init__()
        self.reduction = reduction
        self.register_buffer("trust", torch.ones(numbers))
        self.trust: Tensor
        self.network = nn.Sequential(
            nn.Linear(len(reduction.scale), hidden),
            nn.SiLU(),
            nn.LayerNorm(hidden),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, numbers),
        )

    def forward(self, z: Float[Tensor, "*batch N D"]) -> Float[Tensor, "*batch C"]:
        return self.trust * self.network(self.reduction(z.flatten(-2)))


def fit_read(
    latents: Float[Tensor, "E S N D"],
    numbers: Float[Tensor, "E S C"],
    keys: Sequence[str],
    *,
    hidden: int,
    updates: int,
    seed: int,
) -> StateRead:
    """Least squares over what exists, on four fifths of the episodes.

    On the others it is found how far each number is to be trusted: what was learned by heart becomes 0, the mean.

    Args:
        keys: episodes of the clips.
    """
    fit, held_out = split_episodes(keys, seed=seed)
    rows = latents[fit].flatten(0, 1).flatten(1)
    truth = numbers[fit].flatten(0, 1)
    exists = truth.isfinite()
    truth = torch.where(exists, truth, 0.0)
    reduction = Reduction.fit(rows, REDUCED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        read = StateRead(reduction, hidden, truth.shape[1])
    seen = reduction(rows)
    draw = torch.Generator().manual_seed(seed)

    def loss() -> Float[Tensor, ""]:
        chosen = torch.randint(len(seen), (BATCH,), generator=draw)
        missed = (read.network(seen[chosen]) - truth[chosen])[exists[chosen]]
        return missed.square().mean()

    _descend(read, loss, updates)
    read.eval().requires_grad_(False)
    then = numbers[held_out].flatten(0, 1)
    guess = torch.where(then.isfinite(), read(latents[held_out]).flatten(0, 1), 0.0)
    read.trust.copy_(((guess * then.nan_to_num()).sum(0) / guess.square().sum(0).clamp_min(1e-9)).clamp(0, 1))
    return read


@dataclass(frozen=True)
class StateSpace:
    """True states as the latents of a world model.

    Attributes:
        optional: numbers that do not exist in every episode; each has a flag.
    """

    code: StateCode
    optional: Bool[Tensor, " C"]

    @classmethod
    def of(cls, code: StateCode, numbers: Float[Tensor, "*batch C"]) -> "StateSpace":
        return cls(code, ~numbers.flatten(0, -2).isfinite().all(0))

    def latents(self, numbers: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch 1 Z"]:
        exists = numbers.isfinite()
        z = [torch.where(exists, numbers, 0.0), exists[..., self.optional].to(numbers)]
        return torch.cat(z, -1)[..., None, :]

    def numbers(self, latents: Float[Tensor, "*batch 1 Z"]) -> Float[Tensor, "*batch C"]:
        return latents[..., 0, : len(self.optional)]


def fit_state_dynamics(
    space: StateSpace,
    numbers: Float[Tensor, "E S C"],
    blocks: Float[Tensor, "E S-1 A"],
    stats: ActionStats,
    *,
    hidden: int,
    updates: int,
    seed: int,
) -> MLPPredictor:
    """A residual MLP, fitted open loop: `UNROLL` steps from any state of a clip, by its actions alone.

    Args:
        blocks: actions that led from each step to the next.
        stats: of these.
    """
    z = space.latents(numbers)
    ahead = min(UNROLL, z.shape[1] - 1)
    flags = int(space.optional.sum())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        predictor = MLPPredictor(
            MLPPredictor.Config(hidden=hidden, depth=2, static=flags), z.shape[-1], blocks.shape[-1]
        )
    scaled = NormalizationStats(torch.tensor(stats.mean), torch.tensor(stats.std))
    assert isinstance(predictor.scale_actions, Standardize)
    predictor.scale_actions.fit(scaled)
    draw = torch.Generator().manual_seed(seed)

    def loss() -> Float[Tensor, ""]:
        clip = torch.randint(len(z), (BATCH, 1), generator=draw)
        step = torch.randint(z.shape[1] - ahead, (BATCH, 1), generator=draw) + torch.arange(ahead)
        imagined = rollout(predictor, LatentState(z[clip, step][:, 0]), blocks[clip, step][:, None])[:, 0]
        return space.numbers(imagined - z[clip, step + 1]).square().mean()

    _descend(predictor, loss, updates)
    return predictor.eval().requires_grad_(False)


def _descend(network: nn.Module, loss: Callable[[], Float[Tensor, ""]], updates: int) -> None:
    """Adam, and a learning rate that falls to 0 along a cosine."""
    optimizer = torch.optim.Adam(network.parameters(), LR, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
