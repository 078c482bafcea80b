"""Imagined futures of held-out clips against what happened, sampled where the model samples.

    z[0..h-1] seen ── recorded actions ──> K samples x of z[h-1+s]                 y: what happened
    energy    E|x-y| - E|x-x'|/2 over the samples            both over the same of z[h-1], the last latent seen
    best_of   squared error of the nearest of k samples

A point prediction has one future: its energy score is its distance, and more samples are no nearer. The squared error
of a mean favors blur; these two do not.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.world_model import Dynamics, rollout
from jepa_probes.comparison.result import Sampled

CLIPS_AT_ONCE = 16


@torch.no_grad()
def sampled_futures(
    dynamics: Dynamics,
    latents: Float[Tensor, "E S N D"],
    blocks: Float[Tensor, "E Q A"],
    history: int,
    horizons: Sequence[int],
    best_of: Sequence[int],
    *,
    states: Float[Tensor, "E S X"] | None = None,
    seed: int = 0,
) -> list[Sampled]:
    """Scores at each of the horizons, in latent steps; one start a clip, `history` latents after its beginning.

    Args:
        blocks: actions between the latents.
        best_of: numbers of samples; the largest is drawn.
        states: at every latent step, for dynamics that need them.
    """
    generator = torch.Generator().manual_seed(seed)
    count, ahead = max(best_of), max(horizons)
    energies = {h: list[Tensor]() for h in horizons}
    errors = {h: list[Tensor]() for h in horizons}
    for clips in torch.arange(len(latents)).split(CLIPS_AT_ONCE):
        z, a = latents[clips], blocks[clips]
        known = None if states is None else states[clips, :history]
        state = dynamics.initial_state(z[:, :history], a[:, : history - 1], known)
        plans = a[:, history - 1 : history - 1 + ahead][:, None].expand(-1, count, -1, -1)
        noise = torch.randn(len(z), count, ahead, *z.shape[2:], generator=generator)
        imagined = rollout(dynamics, state, plans, noise)
        for h in horizons:
            x = imagined[:, :, h - 1].flatten(2)
            away = (x - z[:, None, history - 1 + h].flatten(2)).norm(dim=-1)  # [B, K]
            apart = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sum((1, 2))
            energies[h].append(away.mean(1) - apart / (2 * max(1, count * (count - 1))))
            errors[h].append(away.square())
    scores = []
    for h in horizons:
        still = (latents[:, history - 1] - latents[:, history - 1 + h]).flatten(1).norm(dim=-1)
        squares = torch.cat(errors[h])
        best = {k: (squares[:, :k].amin(1).mean() / still.square().mean()).item() for k in best_of}
        energy = (torch.cat(energies[h]).mean() / still.mean()).item()
        scores.append(Sampled(horizon=h, energy=energy, best_of=best))
    return scores


@torch.no_grad()
def next_latent_nll(
    dynamics: Dynamics,
    latents: Float[Tensor, "E S N D"],
    blocks: Float[Tensor, "E Q A"],
    history: int,
    std: Float[Tensor, "N D"],
    states: Float[Tensor, "E S X"] | None = None,
) -> float | None:
    """Negative log density of the latent after the first `history`, in nats a number, in latents divided by `std`.

    None where the dynamics have no density.
    """
    known = None if states is None else states[:, :history]
    state = dynamics.initial_state(latents[:, :history], blocks[:, : history - 1], known)
    _, next_latent = dynamics.step(state, blocks[:, history - 1])
    density = next_latent.log_prob(latents[:, history])
    if density is None:
        return None
    return (-density.mean() / std.numel() - std.log().mean()).item()
