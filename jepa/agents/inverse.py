"""Acting by inverse dynamics: what was done in the recordings when the goal came so many steps later.

    recorded clip     z_0 ─a_0─> z_1 ─a_1─> z_2 ─a_2─> z_3 …
    pairs             (z_t, z_{t+k}) -> a_t          any t, any k >= 1: every later moment was somebody's goal

A regression, no search and no model of what happens next: a plan costs one pass of a small network. It is the baseline
beside which planning is read (facts of others: on frozen latents it does as well as CEM in most settings), and a place
to start planning from. Its recordings' average is its limit: where two ways lead to a goal, it goes between them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jepa.agents.controller import ActionSpace, Actor, Senses


@dataclass(frozen=True)
class InverseSettings:
    """How the regression is fitted: Adam steps of `batch` pairs each, on a network of `layers` x `hidden` units."""

    updates: int = 2000
    batch: int = 256
    lr: float = 1e-3
    hidden: int = 256
    layers: int = 2


def fit_inverse(
    latents: Float[Tensor, "V S N D"],
    goals: Float[Tensor, "V S N D"],
    actions: Float[Tensor, "V S-1 E"],
    space: ActionSpace,
    settings: InverseSettings | None = None,
    seed: int = 0,
) -> Actor:
    """The controller that does, on average, what was done in V clips.

    Args:
        latents: of the clips' S steps.
        goals: the same moments as a goal picture shows them; the latents themselves unless a step has several frames.
        actions: blocks that led from each step to the next.
        space: what the controller decides.
        seed: of the network's weights and of the pairs drawn.

    Raises:
        ValueError: there are fewer than two steps, or shapes do not fit.
    """
    clips, steps = latents.shape[:2]
    if steps < 2:
        raise ValueError(f"inverse dynamics need clips of two latent steps at least, found {steps}")
    if goals.shape != latents.shape or actions.shape != (clips, steps - 1, space.block_size):
        raise ValueError(
            f"expected goals {list(latents.shape)} and actions {[clips, steps - 1, space.block_size]}, found "
            f"{list(goals.shape)} and {list(actions.shape)}"
        )
    settings = settings or InverseSettings()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        actor = Actor(Senses(latents.shape[2], latents.shape[3]), space, hidden=settings.hidden, layers=settings.layers)
    actor.senses.fit(latents.flatten(0, 1))
    done = space.decisions(actions)
    optimizer = torch.optim.Adam(actor.parameters(), settings.lr)
    for _ in range(settings.updates):
        clip = torch.randint(clips, (settings.batch,), generator=generator)
        now = torch.randint(steps - 1, (settings.batch,), generator=generator)
        ahead = torch.rand(settings.batch, generator=generator, dtype=torch.float64)
        later = now + 1 + (ahead * (steps - 1 - now)).long()
        optimizer.zero_grad()
        F.mse_loss(actor(latents[clip, now], goals[clip, later]).mean, done[clip, now]).backward()
        optimizer.step()
    return actor.eval().requires_grad_(False)
