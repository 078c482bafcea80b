"""Mean and standard deviation of the actions or states of a run, read from the shards without decoding video.

At most SAMPLES samples are read per source, spread evenly; sources are weighted as in the mix. Action statistics in a
manifest are used as they are.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from jepa_data.actions import ActionStats, ActionSums, mixed, stats_of
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.manifest import ACTIONS, STATES
from jepa_data.shards.read import read_npy
from jepa_data.stream.clips import Corpus
from jepa_data.stream.loader import ClipLoader

SAMPLES = 4096  # of a source
What = Literal["actions", "states"]


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and share of missing values (NaN) of each column."""

    mean: Float64[np.ndarray, " X"]
    std: Float64[np.ndarray, " X"]
    missing: Float64[np.ndarray, " X"]


def spread(loader: ClipLoader, what: What, samples: int = SAMPLES) -> Spread:
    """Over the split that the loader draws from.

    Raises:
        DataError: there is nothing to read, or nothing of it can be read.
    """
    weights = np.array([source.weight for source in loader.config.sources])
    parts = np.stack([_sums(corpus, what, samples)[0] for corpus in loader.corpora])
    rows, there, means, squares = parts.swapaxes(0, 1)  # [sources, X] each
    shares = (weights / weights.sum())[:, None] * there / rows  # what a source gives to each number
    with np.errstate(invalid="ignore", divide="ignore"):
        known = shares / shares.sum(0)
        mean = (known * means).sum(0)
        variance = (known * (squares / there.clip(1) + (means - mean) ** 2)).sum(0)
    return Spread(mean, np.sqrt(variance), 1 - shares.sum(0))


def action_stats(loader: ClipLoader, samples: int = SAMPLES) -> ActionStats:
    """Statistics of raw actions: from the manifests, or from the samples if an older manifest has none.

    Raises:
        DataError: there are no actions, or one of their numbers is missing (NaN) everywhere.
    """
    weights = [source.weight for source in loader.config.sources]
    manifests = [source.manifest for source in loader.sources]
    pairs = zip(manifests, loader.corpora, strict=True)
    return mixed([about.actions or _read_stats(corpus, about.world, samples) for about, corpus in pairs], weights)


def _read_stats(corpus: Corpus, world: str | None, samples: int) -> ActionStats:
    (_, there, mean, squares), (low, high) = _sums(corpus, "actions", samples)
    if not there.all():
        number = int(np.flatnonzero(there == 0)[0]) + 1
        raise DataError(f"{corpus.store.url}: number {number} of {len(there)} of all actions is missing (NaN)")
    numbers = {"low": low, "high": high, "mean": mean, "squares": squares / there}
    sums = ActionSums(count=1, **{name: tuple(array.tolist()) for name, array in numbers.items()})
    return stats_of(sums, sums, world)


def _sums(corpus: Corpus, what: What, samples: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows, those that are there, their mean, their squared distances from it summed [4, X]; lowest, highest [2, X].

    About the mean: the difference of two sums of squares would make a number that is always 1000.3 vary by 1e-5.
    """
    member, width = {"actions": (ACTIONS, corpus.action_size), "states": (STATES, corpus.states)}[what]
    if not width:
        raise DataError(f"{corpus.store.url}: there are no {what} in these shards, or sources have different ones")
    total = np.zeros((4, width))
    low = np.full(width, np.inf)
    high = -low
    numbers = np.unique(np.linspace(0, len(corpus) - 1, min(samples, len(corpus))).astype(int)).tolist()
    for number in numbers:
        sample = corpus[number]
        try:
            at, size = sample.members[member]
            values = read_npy(corpus.store.read(sample.shard, at, size), sample.frames - (what == "actions"))
        except (DecodeError, KeyError):  # named by the stream, if it comes to that sample
            continue
        if values.shape[1] != width:
            continue
        wide = values.astype(np.float64)
        total = _joined(total, wide)
        there = np.isfinite(wide)
        low = np.minimum(low, np.where(there, wide, np.inf).min(0, initial=np.inf))
        high = np.maximum(high, np.where(there, wide, -np.inf).max(0, initial=-np.inf))
    if not total[0].any():
        raise DataError(f"{corpus.store.url}: the {what} of none of {len(numbers)} samples can be read")
    return total, np.stack([low, high])


def _joined(total: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The moments [4, X] of what they were of and of further rows [n, X] (Chan et al. 1979)."""
    there = np.isfinite(rows)
    count = there.sum(0)
    mean = np.where(there, rows, 0.0).sum(0) / count.clip(1)
    squares = (np.where(there, rows - mean, 0.0) ** 2).sum(0)
    apart = mean - total[2]
    both = (total[1] + count).clip(1)
    return np.stack(
        [
            total[0] + len(rows),
            total[1] + count,
            total[2] + apart * count / both,
            total[3] + squares + apart**2 * total[1] * count / both,
        ]
    )
