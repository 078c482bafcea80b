"""How well the dynamics predict held-out latents, one step and ten steps ahead, open loop.

z[0..s] known, actions of s .. s+h-1 given, z[s+h] predicted; for every s and every clip

model      mean squared error of the prediction
identity   of predicting z[s]: what is right if nothing moves
shuffled   of the same model fed the actions of another clip: equal to `model` if actions are ignored
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from jepa.config import UserError
from jepa.world_model import Dynamics, block_actions, rollout
from jepa_probes.probing.result import PredictionErrors

CLIPS_AT_ONCE = 32


def predict_latents(
    dynamics: Dynamics,
    latents: Float[Tensor, "E S N D"],
    actions: Float[Tensor, "E P A"],
    frames_per_step: int,
    *,
    horizons: Sequence[int] = (1, 10),
    context: int = 1,
    states: Float[Tensor, "E S X"] | None = None,
    seed: int = 0,
) -> list[PredictionErrors]:
    """Scores on held-out clips.

    Args:
        actions: the P = T-1 raw ones between the T frames of each clip.
        horizons: in latent steps.
        context: latents that the dynamics see before they predict.
        states: at every latent step, for dynamics that need them; those of later steps are hidden from them.

    Raises:
        UserError: a horizon is longer than the clips, or there is only one clip (nothing to shuffle with).
    """
    clips, steps = latents.shape[:2]
    if clips < 2:
        raise UserError("actions are shuffled between clips, so latent prediction needs at least 2, found 1")
    if context + max(horizons) > steps:
        raise UserError(
            f"the clips have {steps} latent steps; predicting {max(horizons)} ahead takes {context + max(horizons)}. "
            f"Use clips of {(context + max(horizons)) * frames_per_step} frames or more"
        )
    blocks = block_actions(actions[:, : steps * frames_per_step - 1], frames_per_step)
    other = blocks[derangement(clips, seed)]
    scores = []
    for horizon in horizons:
        target = latents[:, context - 1 + horizon :]
        errors = {
            name: F.mse_loss(_ahead(dynamics, latents, given, states, horizon, context), target).item()
            for name, given in (("model", blocks), ("shuffled", other))
        }
        errors["identity"] = F.mse_loss(latents[:, context - 1 : steps - horizon], target).item()
        scores.append(PredictionErrors(horizon=horizon, samples=clips * target.shape[1], **errors))
    return scores


@torch.no_grad()
def _ahead(
    dynamics: Dynamics,
    latents: Float[Tensor, "E S N D"],
    blocks: Float[Tensor, "E S-1 A"],
    states: Float[Tensor, "E S X"] | None,
    horizon: int,
    context: int,
) -> Float[Tensor, "E M N D"]:
    """What is predicted `horizon` steps after each start context-1 .. S-1-horizon."""
    starts = range(context - 1, latents.shape[1] - horizon)
    parts = []
    for clips in torch.arange(len(latents)).split(CLIPS_AT_ONCE):
        z, a = latents[clips], blocks[clips]
        seen = torch.cat([z[:, s - context + 1 : s + 1] for s in starts])
        before = torch.cat([a[:, s - context + 1 : s] for s in starts])
        after = torch.cat([a[:, s : s + horizon] for s in starts])
        seen_states = None
        if states is not None:
            seen_states = torch.cat([states[clips, s - context + 1 : s + 1] for s in starts])
        imagined = rollout(dynamics, dynamics.initial_state(seen, before, seen_states), after[:, None])[:, 0, -1]
        parts.append(imagined.unflatten(0, (len(starts), len(z))).transpose(0, 1))
    return torch.cat(parts)


def derangement(n: int, seed: int) -> Int[Tensor, " n"]:
    """A random permutation that leaves nothing in its place: one cycle through all."""
    cycle = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    other = torch.empty_like(cycle)
    other[cycle] = cycle.roll(1)
    return other
