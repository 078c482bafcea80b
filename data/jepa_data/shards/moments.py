"""Mean and spread of the actions, or the states, that a run is trained on: read from the shards without their videos.

Of each source at most so many samples are read, spread evenly over it; sources count as they are mixed. What a manifest
says of its actions is not read again.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from jepa_data.actions import ActionStats, ActionSums, mixed, stats_of
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.clips import Corpus
from jepa_data.shards.manifest import ACTIONS, STATES
from jepa_data.shards.read import read_npy
from jepa_data.shards.stream import ClipLoader

SAMPLES = 4096  # of a source


@dataclass(frozen=True)
class Spread:
    """Of each number: its mean, its standard deviation, and the share of it that is missing (NaN)."""

    mean: Float64[np.ndarray, " X"]
    std: Float64[np.ndarray, " X"]
    missing: Float64[np.ndarray, " X"]


def spread(loader: ClipLoader, what: Literal["actions", "states"], samples: int = SAMPLES) -> Spread:
    """Over the split that the loader draws from.

    Raises:
        DataError: there is nothing to read, or nothing of it can be read.
    """
    weights = [source.weight for source in loader.config.sources]
    parts = [_sums(corpus, what, samples)[0] for corpus in loader.corpora]
    total = np.zeros_like(parts[0])
    for weight, part in zip(weights, parts, strict=True):
        total += weight / sum(weights) * part / part[0].clip(1)  # [count, there, sum, squares] per row of the source
    rows, there, mean, square = total
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, square = mean / there, square / there
    return Spread(mean, np.sqrt((square - mean**2).clip(0)), 1 - there / rows.clip(1e-12))


def action_stats(loader: ClipLoader, samples: int = SAMPLES) -> ActionStats:
    """Of raw actions: what the manifests say, or, where an older one says nothing, what is read from the samples.

    Raises:
        DataError: there are no actions, or one of their numbers is missing (NaN) everywhere.
    """
    weights = [source.weight for source in loader.config.sources]
    parts = []
    for shards, corpus in zip(loader.sources, loader.corpora, strict=True):
        about = shards.manifest
        parts.append(about.actions or _read_stats(corpus, about.world, samples))
    return mixed(parts, weights)


def _read_stats(corpus: Corpus, world: str | None, samples: int) -> ActionStats:
    (_, there, total, squares), (low, high) = _sums(corpus, "actions", samples)
    if not there.all():
        number = int(np.flatnonzero(there == 0)[0]) + 1
        raise DataError(
            f"{corpus.store.url}: number {number} of the {len(there)} of an action is missing (NaN) in all samples"
        )
    mean = total / there
    deviation = np.sqrt((squares / there - mean**2).clip(0))
    found = ActionSums(
        count=1,
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        mean=tuple(mean.tolist()),
        squares=tuple((deviation**2).tolist()),
    )
    return stats_of(found, found, world)


def _sums(
    corpus: Corpus, what: Literal["actions", "states"], samples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows, those that are there, their sum and that of their squares [4, X]; the smallest and the largest [2, X]."""
    member, width = (ACTIONS, corpus.action_size) if what == "actions" else (STATES, corpus.states)
    if not width:
        raise DataError(f"{corpus.store.url}: there are no {what} in these shards, or sources have different ones")
    sums, failed = np.zeros((4, width)), 0
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for number in np.unique(np.linspace(0, len(corpus) - 1, min(samples, len(corpus))).astype(int)).tolist():
        sample = corpus[number]
        try:
            at, size = sample.members[member]
            found = read_npy(corpus.store.read(sample.shard, at, size), sample.frames - (what == "actions"))
        except (DecodeError, KeyError):  # named by the stream, if it comes to that sample
            failed += 1
            continue
        if found.shape[1] != width:
            failed += 1
            continue
        wide = found.astype(np.float64)
        there = np.isfinite(wide)
        known = np.where(there, wide, 0.0)
        sums += np.stack([np.full(width, len(wide)), there.sum(0), known.sum(0), (known**2).sum(0)])
        low = np.minimum(low, np.where(there, wide, np.inf).min(0, initial=np.inf))
        high = np.maximum(high, np.where(there, wide, -np.inf).max(0, initial=-np.inf))
    if not sums[0].any():
        raise DataError(f"{corpus.store.url}: the {what} of none of {failed} samples can be read")
    return sums, np.stack([low, high])
