"""The clip at each position of each batch, computed by arithmetic: any batch can be computed at any time.

Clips are numbered endlessly. Batch b has positions b*B .. b*B+B-1, and each position draws the next clip of a source:

    places     0 . . . . . . . | . . . . . . . | . . .        one source with N*R = 8 clips, B = 3
    batches    [0  ][1  ][2  ][3  ][4  ][5  ][6  ]
    epochs     0                 1               2

With several sources, every batch contains the share of each source, rounded up or down; over 64 batches the shares are
as exact as whole clips allow. Each source has its own epochs: all its clips once, then again in another order. There is
no shuffle buffer: the shards of an epoch are permuted and grouped into windows, and the videos of a window are
permuted. With one window (up to `window_shards` shards), this is a plain permutation.

With R clips per video, runs of videos that fill a few batches are repeated R times. The clips of a video are in
different batches, at the same position, an even number of batches apart. So for 1, 2 and 4 workers, and any number of
ranks, the process that decoded a video for its first clip also delivers the others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any

import numpy as np
from jaxtyping import Int64

from jepa_data.sampling import MIX, ORDER, SHARDS, clip_generator

RUN_BATCHES = 4  # between two clips of one video
CYCLE = 64  # batches after which the shares of the sources repeat
KEPT = 4  # epochs, and windows of videos, whose order is cached
SOURCE_BITS = 48  # clip numbers of a source: the lower 48 bits count, the upper ones name the source


def _last_few(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method with a cache of its last results on the object. Thread-safe."""

    @wraps(method)
    def kept(self: object, *key: int) -> Any:
        results = vars(self).setdefault(f"_kept{method.__name__}", {})
        result = results.get(key)
        if result is None:
            result = results[key] = method(self, *key)
            for old in list(results)[:-KEPT]:
                results.pop(old, None)
        return result

    return kept


@dataclass(frozen=True, slots=True)
class ClipIndex:
    """One position of a batch. `clip` numbers the clips of a video in an epoch, `position` the clips of the epoch."""

    source: int
    epoch: int
    position: int
    video: int  # number of the sample among those of the source that are used
    clip: int

    @property
    def number(self) -> int:
        """The number of this clip among all sources in an epoch, used to seed random numbers."""
        return (self.source << SOURCE_BITS) + self.position

    @property
    def identity(self) -> tuple[int, int, int]:
        """A key that is unique in a run."""
        return self.source, self.epoch, self.position


@dataclass(frozen=True)
class SourcePlan:
    """The order of the clips of one source.

    Attributes:
        shard_sizes: videos in each shard.
        clips: R, clips of each video in an epoch.
        run: videos repeated R times together.
        window_shards: shards that are shuffled together.
    """

    shard_sizes: tuple[int, ...]
    clips: int
    run: int
    window_shards: int
    seed: int
    number: int = 0

    @cached_property
    def videos(self) -> int:
        return sum(self.shard_sizes)

    @property
    def epoch_places(self) -> int:
        return self.videos * self.clips

    def draw(self, count: int) -> ClipIndex:
        """Clip number `count`, counted through all epochs."""
        epoch, position = divmod(count, self.epoch_places)
        window, offset = self._window(epoch, position)
        order = self._order(epoch, window)
        clip, at = self._within(offset, len(order))
        return ClipIndex(self.number, epoch, position, int(order[at]), clip)

    def later(self, index: ClipIndex) -> list[ClipIndex]:
        """The other clips of the same video that come after this one in the epoch."""
        window, offset = self._window(index.epoch, index.position)
        first = offset // (self.run * self.clips) * self.run
        size = min(self.run, len(self._order(index.epoch, window)) - first)
        return [
            ClipIndex(index.source, index.epoch, index.position + (clip - index.clip) * size, index.video, clip)
            for clip in range(index.clip + 1, self.clips)
        ]

    def _within(self, offset: int, videos: int) -> tuple[int, int]:
        """Clip, and position of the video in the window's order."""
        run, rest = divmod(offset, self.run * self.clips)
        size = min(self.run, videos - run * self.run)
        clip, at = divmod(rest, size)
        return clip, run * self.run + at

    def _window(self, epoch: int, position: int) -> tuple[int, int]:
        """Number of the window a position lies in, and how far into it."""
        starts = self._epoch(epoch)[1]
        window = int(np.searchsorted(starts, position, side="right")) - 1
        return window, position - int(starts[window])

    @_last_few
    def _epoch(self, epoch: int) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " W"]]:
        """Order of the shards, and the places at which windows begin."""
        shards = np.arange(len(self.shard_sizes))
        if len(shards) > self.window_shards:
            shards = clip_generator(self.seed, SHARDS, epoch, self.number << SOURCE_BITS).permutation(shards)
        videos_before = np.cumsum([0, *np.array(self.shard_sizes)[shards]])
        return shards, videos_before[: -1 : self.window_shards] * self.clips

    @_last_few
    def _order(self, epoch: int, window: int) -> Int64[np.ndarray, " V"]:
        """Videos of a window."""
        first = window * self.window_shards
        shards = np.sort(self._epoch(epoch)[0][first : first + self.window_shards])
        starts = self._starts
        videos = np.concatenate([np.arange(int(starts[s]), int(starts[s + 1])) for s in shards.tolist()])
        random = clip_generator(self.seed, ORDER, epoch, (self.number << SOURCE_BITS) + window)
        return random.permutation(videos)

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " edges"]:
        return np.concatenate([[0], np.cumsum(self.shard_sizes)]).astype(np.int64)


@dataclass(frozen=True)
class BatchPlan:
    """The order of clips, a pure function of its fields; B is over all ranks.

    Attributes:
        sources: at least one.
        weights: share of each source in training, positive; they need not sum to 1.
        endless: training, shuffled and endless; otherwise one pass in order, source after source, with a smaller last
            batch if needed.
    """

    sources: tuple[SourcePlan, ...]
    weights: tuple[float, ...]
    batch_size: int
    seed: int
    endless: bool
    rank: int = 0
    world_size: int = 1

    @property
    def epoch_places(self) -> int:
        return sum(source.epoch_places for source in self.sources)

    @property
    def epoch_batches(self) -> int:
        """Number of batches for as many clips as all sources have, including a partial last batch."""
        return -(-self.epoch_places // self.batch_size)

    def batch(self, number: int) -> list[ClipIndex]:
        """The positions of this rank in one batch."""
        share = self.batch_size // self.world_size
        first = self.rank * share
        if not self.endless:
            places = range(number * self.batch_size + first, number * self.batch_size + first + share)
            return [self._in_order(position) for position in places if position < self.epoch_places]
        if len(self.sources) == 1:
            return [self.sources[0].draw(number * self.batch_size + i) for i in range(first, first + share)]
        before = self.drawn(number)
        sources = self._sources_of(number)
        earlier = [int(np.count_nonzero(sources[:first] == s)) for s in range(len(self.sources))]
        slots = []
        for source in sources[first : first + share].tolist():
            slots.append(self.sources[source].draw(before[source] + earlier[source]))
            earlier[source] += 1
        return slots

    def later(self, index: ClipIndex) -> list[ClipIndex]:
        """The other clips of the same video that come after this one in the epoch."""
        source = self.sources[index.source]
        if index.clip + 1 == source.clips:
            return []
        if self.endless:
            return source.later(index)
        steps = range(1, source.clips - index.clip)
        return [replace(index, position=index.position + step, clip=index.clip + step) for step in steps]

    def batches(self, first: int, last: int, step: int = 1) -> Iterator[list[ClipIndex]]:
        """Batches `first`, `first + step`, ... below `last`."""
        for number in range(first, last, step):
            yield self.batch(number)

    def drawn(self, batches: int) -> list[int]:
        """Clips drawn from each source in the first batches."""
        if len(self.sources) == 1:
            return [batches * self.batch_size]
        cycles, rest = divmod(batches, CYCLE)
        return (cycles * self._quotas.sum(0) + self._quotas[:rest].sum(0)).tolist()

    def _sources_of(self, number: int) -> Int64[np.ndarray, " B"]:
        """Source of each position of a batch: the quota of each source, in random order."""
        quota = self._quotas[number % CYCLE]
        return clip_generator(self.seed, MIX, 0, number).permutation(np.repeat(np.arange(len(quota)), quota))

    @cached_property
    def _quotas(self) -> Int64[np.ndarray, "C K"]:
        return quotas(self.weights, self.batch_size, CYCLE)

    def _in_order(self, position: int) -> ClipIndex:
        for number, source in enumerate(self.sources):
            if position < source.epoch_places:
                video, clip = divmod(position, source.clips)
                return ClipIndex(number, 0, position, video, clip)
            position -= source.epoch_places
        raise IndexError(position)


def quotas(weights: Sequence[float], batch_size: int, batches: int) -> Int64[np.ndarray, "C K"]:
    """Clips of each source in each of `batches` batches: the exact share, rounded up or down.

    The remainder after rounding down goes to the sources that are furthest behind their share.
    """
    share = np.array(weights, np.float64) / sum(weights) * batch_size
    rows = []
    given = np.zeros(len(share))
    for batch in range(1, batches + 1):
        row = np.floor(share + 1e-9)
        lag = share * batch - given - row
        # Only sources whose share is no whole number can take one more.
        lag[share - row < 1e-9] = -np.inf
        row[np.argsort(-lag, kind="stable")[: round(batch_size - row.sum())]] += 1
        rows.append(row)
        given += row
    return np.array(rows, np.int64)
