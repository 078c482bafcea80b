"""Inverse dynamics as a policy: the recorded action, given the current latent and a later latent as the goal.

    recorded clip     z_0 ─a_0─> z_1 ─a_1─> z_2 ─a_2─> z_3 …
    pairs             (z_t, z_{t+k}) -> a_t          any t, any k >= 1: every later latent is a goal
    weight            exp(-w max(0, k - least(z_t, z_{t+k})))

This is a regression, without search or dynamics: an action costs one pass of a small network. It is the main baseline
of planning (others report that on frozen latents it matches CEM in most settings), and an initial plan. It learns the
average of the recorded actions: if two paths lead to a goal, it goes between them.

With w > 0, slow recordings get a low weight. `least` estimates the minimum number of steps: a low expectile of k,
predicted by the same network (expectile regression as in IQL, arXiv 2110.06169; weighted hindsight as in WGCSL,
2202.04478). The policy is then more direct than its recordings.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.agents.config import InverseSettings
from jepa.agents.controller import ActionSpace, Actor, ObservationNormalizer
from jepa_data.devices import multiplies_bf16

WARM_UP = 500  # updates before the time penalty applies
MIN_WEIGHT = 0.02  # squared steps beside squared actions


def fit_inverse(
    latents: Float[Tensor, "V S N D"],
    goals: Float[Tensor, "V S N D"],
    actions: Float[Tensor, "V S-1 E"],
    space: ActionSpace,
    settings: InverseSettings | None = None,
    seed: int = 0,
) -> Actor:
    """Fit a controller to the recorded actions of V clips.

    Args:
        latents: of the S steps of the clips.
        goals: the same steps encoded as goal images; equal to `latents` unless a step has several frames.
        actions: blocks from each step to the next.
        space: maps decisions to blocks of actions.
        seed: of the network weights and of the pairs.

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
        normalizer = ObservationNormalizer.fitted(latents.flatten(0, 1))
        actor = Actor(normalizer, space, hidden=settings.hidden, layers=settings.layers, norm=nn.LayerNorm)
        min_steps = nn.Linear(actor.features, 1)
    done = space.decisions(actions)
    in_bf16 = multiplies_bf16(latents.device) if settings.bf16 == "auto" else settings.bf16
    optimizer = torch.optim.Adam([*actor.parameters(), *min_steps.parameters()], settings.lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.updates)
    for update in range(settings.updates):
        clip = torch.randint(clips, (settings.batch,), generator=generator)
        now = torch.randint(steps - 1, (settings.batch,), generator=generator)
        ahead = torch.rand(settings.batch, generator=generator, dtype=torch.float64)
        later = now + 1 + (ahead * (steps - 1 - now).clamp_max(settings.ahead or steps)).long()
        seen = actor.normalizer(latents[clip, now], goals[clip, later])
        with torch.autocast(seen.device.type, torch.bfloat16, enabled=in_bf16):
            features = actor.network[:-1](seen)
        features = features.float()
        missed = (actor.decided(features).mean - done[clip, now]).square().mean(-1)
        loss = missed.mean()
        if settings.time_penalty:
            late = (later - now) - F.softplus(min_steps(features))[:, 0]
            loss = _weight_by_time(missed, late, settings.time_penalty * (update >= WARM_UP))
            loss = loss + MIN_WEIGHT * expectile(late, settings.expectile)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return actor.eval().requires_grad_(False)


def _weight_by_time(missed: Float[Tensor, " M"], late: Float[Tensor, " M"], time_penalty: float) -> Float[Tensor, ""]:
    """The weighted mean of the errors, with lower weights for slow recordings."""
    weight = (-time_penalty * late.detach().clamp_min(0)).exp()
    return (missed * weight).sum() / weight.sum()


def expectile(late: Float[Tensor, " M"], share: float) -> Float[Tensor, ""]:
    """Asymmetric squared error, minimal at the expectile `share` (0.5: the mean) of the number of steps."""
    return (torch.where(late > 0, share, 1 - share) * late.square()).mean()
