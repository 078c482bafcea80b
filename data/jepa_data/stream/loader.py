"""Shards to batches of clips: `make_loader`, and what it returns.

The contents of a batch depend only on (seed, epoch, position). Any number of workers yields the same batches, and a run
resumed at batch k continues exactly.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.shards.index import ShardSet
from jepa_data.shards.store import open_store
from jepa_data.spatial.kinds import MAPS
from jepa_data.stream.clips import ClipReader, Corpus, WorkerBatch
from jepa_data.stream.latents import Latents, manifest_sha256
from jepa_data.stream.loader_stats import StatsRecorder
from jepa_data.stream.plan import RUN_BATCHES, BatchPlan, SourcePlan
from jepa_data.stream.select import select
from jepa_data.stream.watchdog import Watchdog
from jepa_data.stream.workers import GuardedStream
from jepa_data.transforms import UNCHANGED
from jepa_data.types import ClipBatch


def make_loader(
    config: StreamConfig,
    split: str,
    *,
    seed: int,
    total_batches: int | None = None,
    shuffle: bool = True,
    start_batch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    latents: str | None = None,
) -> "ClipLoader":
    """Batches of clips of one split.

    Args:
        total_batches: length of the loader, over as many epochs as needed in training; None: one epoch.
        shuffle: True: training, with a new order and new clips in each epoch. False: evaluation, with every sample
            once, in order, from `config.start_seconds` or the middle; the last batch may be smaller.
        start_batch: batches already used, as `load_state_dict` would set it.
        latents: folder of latents (`jepa data tokenize`) that are read in place of the video.
        rank, world_size: each process gets `batch_size / world_size` clips of each batch.

    Raises:
        DataError: a folder cannot be used, a video is shorter than a clip (`config.short`), more samples are lost
            than `config.max_bad_fraction` allows, sources are incompatible, or sizes do not divide.
    """
    if config.batch_size % world_size:
        raise DataError(f"data.batch_size: {config.batch_size} clips cannot be shared evenly by {world_size} processes")
    stores = [open_store(source.shards, config.remote) for source in config.sources]
    sources = tuple(map(ShardSet.open, stores))
    opened = None if latents is None else _open_latents(latents, sources, config)
    loader = ClipLoader(config, sources, split, seed, total_batches, shuffle, rank, world_size, opened)
    loader.load_state_dict({"batch": start_batch})
    return loader


@dataclass(eq=False, repr=False)
class ClipLoader:
    """Iterates over `len(self)` batches; made by `make_loader`.

    In training, each pass continues where the last one stopped. `state_dict()` contains the number of batches yielded;
    a new loader that loads it yields the rest. Lightning stores it in checkpoints automatically. In evaluation, every
    pass starts at the beginning.

    Attributes:
        shards: the first source; `sources`: all of them.
        corpora: the samples of each source.
        stats: counts since the loader was made.
        action_size: width of `ClipBatch.actions`; 0 without actions.
        events: names of the columns of `ClipBatch.events`; () without events.
        bad: samples that could not be read, by key.
        notes: problems found when the shards were opened, one line each.
    """

    config: StreamConfig
    sources: tuple[ShardSet, ...]
    split: str
    seed: int
    total_batches: int | None
    shuffle: bool
    rank: int
    world_size: int
    latents: Latents | None = None

    def __post_init__(self) -> None:
        self.shards = self.sources[0]
        self._recorder = StatsRecorder(self.config, self.sources, self.split)
        self.stats = self._recorder.stats
        self.bad = self._recorder.bad
        self.action_size, mismatches = fitting(self.sources, self.config)
        self.events = common_events(self.sources) if self.config.events else ()
        self.notes = (*(note for source in self.sources for note in source.notes), *mismatches)
        self.corpora = [self._select(number, source) for number, source in enumerate(self.sources)]
        check_spatial(self.sources, self.corpora)
        self._recorder.check()
        self.plan = self._plan()
        self._batches = self.plan.epoch_batches
        if self.total_batches is not None:
            self._batches = self.total_batches if self.shuffle else min(self.total_batches, self._batches)
        manifests = [source.manifest for source in self.sources]
        labels = sorted({name for manifest in manifests for name in manifest.label_names})
        marks = torch.zeros(max(1, self.config.workers), 3, dtype=torch.int64)
        if self.config.has_worker_processes:
            marks.share_memory_()
        self._reader = ClipReader(self.config, self.corpora, self.plan, labels, self.latents, marks)
        self._consumed = 0
        self._data = list(map(manifest_sha256, manifests))
        self._samples = [corpus.fingerprint() for corpus in self.corpora]

    def __len__(self) -> int:
        return self._batches

    @property
    def samples(self) -> Corpus:
        """The samples, if there is one source."""
        return self.corpora[0]

    @property
    def position(self) -> dict[str, Any]:
        """Batches yielded, and the epoch of each source (a fraction)."""
        drawn = self.plan.drawn(self._consumed)
        epochs = [round(n / source.epoch_places, 4) for n, source in zip(drawn, self.plan.sources, strict=True)]
        return {"batch": self._consumed, "epochs": epochs}

    def state_dict(self) -> dict[str, Any]:
        return {"batch": self._consumed, "data": self._data, "samples": self._samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batches of a state. Raises DataError if the shards have changed since."""
        if state.get("data", self._data) != self._data:
            raise DataError(
                f"{self.shards.url}: these shards have changed since the state was saved, so its place in them means "
                "nothing. Restore them, or start another run from these weights with init_from"
            )
        if state.get("samples", self._samples) != self._samples:
            raise DataError(
                f"{self.shards.url}: other samples are left out than when the state was saved (data.skip, or shards "
                "that lost some), so its place among them means nothing. Give the same list, or start another run from "
                "these weights with init_from"
            )
        self._consumed = int(state["batch"])

    def __iter__(self) -> Iterator[ClipBatch]:
        if not self.plan.endless:
            self._consumed = 0
        first = self._consumed
        done = first % max(1, self._batches)
        stream = GuardedStream(self.plan, self._reader, first, first - done + self._batches)
        batches = iter(stream)
        try:
            with Watchdog(self.config.stall_seconds, stream.pids, self._stalled) as dog:
                since = time.perf_counter()
                while True:
                    asked = time.perf_counter()
                    dog.waiting()
                    worker_batch = self._next(batches)
                    dog.arrived()
                    if worker_batch is None:
                        return
                    self.stats.wait_seconds += time.perf_counter() - asked
                    self._recorder.account(worker_batch)
                    self._consumed += 1
                    if worker_batch.batch is not None:
                        self.stats.clips += len(worker_batch.batch)
                        self.stats.seconds += time.perf_counter() - since
                        since = time.perf_counter()
                        yield worker_batch.batch
        finally:
            batches.close()  # stops the workers now: left to the garbage collector, torch waits five seconds for each

    def _next(self, batches: Iterator[WorkerBatch]) -> WorkerBatch | None:
        try:
            return next(batches, None)
        # The last three: torch was fetching a batch from the worker when it ended.
        except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
            raised_in_a_worker = str(error).startswith("Caught ")
            other = isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)
            if not self.config.has_worker_processes or raised_in_a_worker or other:
                raise
            raise DataError(
                f"a worker of the data stream ended in its work ({' '.join(str(error).split())}). It may have run "
                "out of memory: lower data.cache_mib or data.workers; or a video crashed its decoder: see which by "
                f"`jepa data check {self.shards.url}`"
            ) from error

    def _stalled(self, seconds: float) -> None:
        self.stats.stalls += 1
        warnings.warn(
            f"no batch has arrived for {seconds:.0f} s (data.stall_seconds); the stacks of all threads are above",
            stacklevel=2,
        )

    def _select(self, number: int, shards: ShardSet) -> Corpus:
        selected = select(shards, self.split, self.config, number)
        self.stats.short += selected.short
        self.stats.skipped += selected.skipped
        for bad in selected.bad:
            self._recorder.record(bad)
        corpus = replace(selected.corpus, events=self.events, has_events=bool(shards.manifest.events))
        if len({source.manifest.state_names for source in self.sources}) > 1:
            return replace(corpus, states=0)
        return corpus

    def _plan(self) -> BatchPlan:
        config = self.config
        weights = tuple(source.weight for source in config.sources)
        plans = tuple(
            SourcePlan(
                corpus.shard_sizes(),
                config.clips_per_video,
                max(1, round(RUN_BATCHES * config.batch_size * weight / sum(weights))),
                config.window_shards,
                self.seed,
                number,
            )
            for number, (corpus, weight) in enumerate(zip(self.corpora, weights, strict=True))
        )
        return BatchPlan(plans, weights, config.batch_size, self.seed, self.shuffle, self.rank, self.world_size)


def _open_latents(folder: str, sources: Sequence[ShardSet], config: StreamConfig) -> Latents:
    """Raises DataError if the config changes images at random, or mixes shards."""
    if config.crop is not None or config.augment != UNCHANGED:
        raise DataError(f"{folder}: latents are of whole images; omit data.crop and data.augment")
    if len(sources) > 1:
        raise DataError(f"{folder}: latents are of one folder of shards, and data.shards mixes {len(sources)}")
    return Latents.open(folder, sources[0].manifest)


def check_spatial(sources: Sequence[ShardSet], corpora: Sequence[Corpus]) -> None:
    """Raises DataError if keypoints or poses of the sources are not the same ones, or classes of masks differ."""
    for infos in zip(*(corpus.spatial for corpus in corpora), strict=True):
        what = [(info.names, None if info.kind in MAPS else info.shape) for info in infos]
        if len(set(what)) > 1:
            listed = "; ".join(f"{source.url}: {info.text()}" for source, info in zip(sources, infos, strict=True))
            raise DataError(
                f"data.spatial: the sources have different {infos[0].kind} ({listed}). Mix those of one kind"
            )


def common_events(sources: Sequence[ShardSet]) -> tuple[str, ...]:
    """Names of the events of the sources; () if none has any. Raises DataError if two have different ones."""
    named = {source.manifest.events: source for source in sources if source.manifest.events}
    if len(named) > 1:
        listed = "; ".join(f"{source.url}: {', '.join(names)}" for names, source in named.items())
        raise DataError(
            f"data.shards: the sources have different events ({listed}). Mix those of one kind, or leave events out: "
            "data.events=false"
        )
    return next(iter(named), ())


def fitting(sources: Sequence[ShardSet], config: StreamConfig) -> tuple[int, list[str]]:
    """Width of the actions, and notes on differences of the sources. Raises DataError if their actions differ."""
    manifests = [source.manifest for source in sources]
    widths = [manifest.action_width(config.fps, config.stride) for manifest in manifests]
    if len(set(widths)) > 1:
        listed = ", ".join(f"{source.url}: {width}" for source, width in zip(sources, widths, strict=True))
        raise DataError(f"data.shards: actions of the sources have different widths ({listed}). Mix those of one kind")
    notes = []
    if len({manifest.state_names for manifest in manifests}) > 1:
        notes.append("data.shards: the sources have different states; batches carry none")
    for label in sorted({name for manifest in manifests for name in manifest.label_names}):
        having = [manifest for manifest in manifests if label in manifest.label_names]
        if len({manifest.label_values.get(label, ()) for manifest in having}) > 1:
            notes.append(f"data.shards: the classes of the label {label!r} have other numbers in other sources")
        elif len(having) < len(manifests):
            notes.append(f"data.shards: the label {label!r} is -1 in the sources that do not have it")
    return widths[0], notes
