"""How well the state is read off when only a few episodes are labelled, which is what pretraining is for.

N training episodes, drawn five times, the same for all columns ──ridge──> R² of the headline on all test episodes

row     state_r2.N_episodes      the mean of the five
column  as in the suite, without `supervised`, whose encoder was trained on the states of all episodes
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import torch
from jaxtyping import Int
from torch import Tensor

from jepa.config import UserError
from jepa_probes.probing.features import Features
from jepa_probes.probing.state import StateProbe, fit_state, mean_state

DRAWS = 5
KNOWS_ALL_LABELS = "supervised"


def few_label_rows(
    features: Mapping[str, tuple[Features, Features]],
    counts: Sequence[int],
    floor: str,
    *,
    headline: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """Scores by row and column.

    Args:
        features: (training features, test features) by column, all of the same clips.
        counts: numbers of training episodes.
        floor: name of the column of the mean state.
        headline: groups of states whose mean R² counts; None: as in state.py.

    Raises:
        UserError: there are fewer training episodes.
    """
    keys = next(iter(features.values()))[0].keys
    names = sorted(set(keys))
    if too_many := [count for count in counts if count > len(names)]:
        raise UserError(f"few_episodes: {max(too_many)} episodes asked for, and {len(names)} are there to train on")
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, dict[str, float | None]] = {}
    for count in counts:
        drawn = [_clips_of(keys, names, torch.randperm(len(names), generator=generator)[:count]) for _ in range(DRAWS)]
        row: dict[str, float | None] = {}
        for column, (train, test) in features.items():
            if column != KNOWS_ALL_LABELS:
                probes = [fit_state(_only(train, clips), seed=seed) for clips in drawn]
                row[column] = _mean(probes, test, headline)
        train, test = next(iter(features.values()))
        row[floor] = _mean([mean_state(_only(train, clips)) for clips in drawn], test, headline)
        rows[f"state_r2.{count}_episodes"] = row
    return rows


def _clips_of(keys: Sequence[str], names: Sequence[str], chosen: Int[Tensor, " n"]) -> Int[Tensor, " E"]:
    wanted = {names[number] for number in chosen.tolist()}
    return torch.tensor([number for number, key in enumerate(keys) if key in wanted])


def _only(features: Features, clips: Int[Tensor, " E"]) -> Features:
    keys = tuple(features.keys[number] for number in clips.tolist())
    return replace(
        features, latents=features.latents[clips], states=features.states[clips], keys=keys, labels={}, spatial={}
    )


def _mean(probes: Sequence[StateProbe], test: Features, headline: Sequence[str] | None) -> float | None:
    """Mean of the scores that are known; None if none is."""
    values = [probe.score(test).mean_of(headline) for probe in probes]
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
