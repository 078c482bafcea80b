"""How far imagination and truth are apart, in the units of the world; and how far imagination leaves what was recorded.

z_0 … z_{h-1} seen ── recorded actions ──> imagined z ── read ──> numbers, beside the true ones
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.predictors.base import LatentState
from jepa.predictors.mlp import MLPPredictor
from jepa.world_model import LatentWorldModel, rollout
from jepa_probes.diagnosis.networks import StateRead, StateSpace
from jepa_probes.diagnosis.result import Exploitation, OpenLoop
from jepa_probes.probing.features import Features

PERCENTILE = 0.99
QUERIES = 4096  # latents whose neighbors are looked for, at most; evenly spaced over what there is
BYTES = 2**27  # of distances at once


@torch.no_grad()
def imagine(
    model: LatentWorldModel, test: Features, blocks: Float[Tensor, "E Q A"], history: int, horizon: int
) -> Float[Tensor, "E H N D"]:
    """Latents that the recorded actions, in blocks, lead to, after the first `history` of each clip were seen."""
    assert model.dynamics is not None
    columns = [test.state_names.index(name) for name in model.spec.states]
    states = test.states[:, :history, columns] if columns else None
    state = model.dynamics.initial_state(test.latents[:, :history], blocks[:, : history - 1], states)
    return rollout(model.dynamics, state, blocks[:, history - 1 : history - 1 + horizon][:, None])[:, 0]


def measure_open_loop(
    imagined: Float[Tensor, "E H N D"],
    test: Features,
    blocks: Float[Tensor, "E Q A"],
    history: int,
    horizons: Sequence[int],
    read: StateRead,
    space: StateSpace,
    dynamics: MLPPredictor,
) -> list[OpenLoop]:
    """Errors of each quantity that moves, at those horizons for which something was imagined.

    Args:
        blocks: the recorded actions between its latents.
        dynamics: on true states, see `fit_state_dynamics`.
    """
    truth = space.code.encode(test.states)
    start = LatentState(space.latents(truth[:, history - 1]))
    longest = imagined.shape[1]
    on_states = rollout(dynamics, start, blocks[:, history - 1 : history - 1 + longest][:, None])[:, 0]
    rows = []
    for quantity in space.code.quantities:
        for horizon in (h for h in horizons if h <= longest):
            then = truth[:, history - 1 + horizon]
            still = space.code.error(quantity, truth[:, history - 1], then)
            if not still > 0:  # it never moves, or does not exist (NaN)
                continue
            row = OpenLoop(
                quantity=quantity.name,
                unit=quantity.unit,
                horizon=horizon,
                imagined=space.code.error(quantity, read(imagined[:, horizon - 1]), then),
                still=still,
                read=space.code.error(quantity, read(test.latents[:, history - 1 + horizon]), then),
                on_states=space.code.error(quantity, space.numbers(on_states[:, horizon - 1]), then),
            )
            rows.append(row)
    return rows


def measure_exploitation(
    plans: Sequence[Float[Tensor, "B _ N D"]],
    recorded: Float[Tensor, "E P N D"],
    train: Float[Tensor, "V S N D"],
    test: Float[Tensor, "W T N D"],
) -> Exploitation:
    """How often imagination is where nothing was recorded.

    Args:
        plans: where the plans of an agent lead.
        recorded: where recorded actions lead, in imagination.
        train, test: recorded latents.
    """
    known = train.flatten(0, 1).flatten(1)
    limit = _nearest(test.flatten(0, 1), known).quantile(PERCENTILE)
    beyond = [
        (_nearest(latents, known) > limit).float().mean().item()
        for latents in (torch.cat([plan.flatten(0, 1) for plan in plans]), recorded.flatten(0, 1))
    ]
    return Exploitation(plans=beyond[0], recorded_actions=beyond[1], distance=limit.item())


def _nearest(latents: Float[Tensor, "M N D"], known: Float[Tensor, "n F"]) -> Float[Tensor, " Q"]:
    """Distances to the nearest known latent, of evenly spaced ones."""
    chosen = latents[torch.linspace(0, len(latents) - 1, min(QUERIES, len(latents))).long()].flatten(1)
    return torch.cat([torch.cdist(part, known).amin(1) for part in _parts(chosen, len(known))])


def _parts(rows: Float[Tensor, "Q F"], others: int) -> Iterator[Tensor]:
    yield from rows.split(max(1, BYTES // (4 * others)))
