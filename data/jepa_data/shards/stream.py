"""Shards to batches of clips: `make_loader`, what it returns, and the WebDataset pipeline behind it.

    BatchPlan -> [Slot, ...] -> CutClips -> [sample, ...] -> collate -> ClipBatch
    (which)                     (read, decode, cut)          (stack)

What stands in a batch depends on (seed, epoch, place) alone; workers only share out the batches, so any number of them
yields the same ones, and a run resumed at batch k continues exactly.
"""

import json
import multiprocessing
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset.pipeline import DataPipeline

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.shards.clips import Bad, Corpus, CutClips, Delivery, collate
from jepa_data.shards.index import ShardSet
from jepa_data.shards.plan import RUN_BATCHES, BatchPlan, Slot, SourcePlan
from jepa_data.shards.select import select
from jepa_data.shards.watchdog import Watchdog, answer_with_stacks
from jepa_data.types import ClipBatch

# What takes a worker seconds to import; named one by one, because the server may not see this package on its path.
HEAVY = ("numpy", "torch", "av", "pydantic", "jaxtyping", "webdataset")
AHEAD = 2  # batches each worker prepares before they are asked for


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
) -> "ClipLoader":
    """Batches of clips of one split.

    Args:
        total_batches: length of the loader, over as many epochs as that takes in training; None: one epoch.
        shuffle: training: another order and other clips each epoch. False is evaluation: every sample once, in order,
            from `config.start_seconds` or the middle; the last batch may be smaller.
        start_batch: batches already used, as `load_state_dict` would set it.
        rank, world_size: this process takes its slice, `batch_size / world_size` clips, of each batch.

    Raises:
        DataError: a folder cannot be used, a video is shorter than a clip (`config.short`), more samples are lost
            than `config.max_bad_fraction` allows, sources do not fit together, or sizes do not divide.
    """
    if config.batch_size % world_size:
        raise DataError(f"data.batch_size: {config.batch_size} clips cannot be shared evenly by {world_size} processes")
    sources = [ShardSet.open(source.shards, config.remote) for source in config.sources]
    loader = ClipLoader(config, sources, split, seed, total_batches, shuffle, rank, world_size)
    loader.load_state_dict({"batch": start_batch})
    return loader


@dataclass
class LoaderStats:
    """Since the loader was made, in this process.

    Attributes:
        clips: handed out; `drawn` says from which source.
        wait_seconds: spent waiting for data; `seconds`: in all.
        bad, short, lost: samples that cannot be read, are shorter than a clip, or are missing from a shard cut short.
        kinds: what was wrong, and how often it was met.
        stalls: times the watchdog reported that nothing arrived.
    """

    clips: int = 0
    wait_seconds: float = 0.0
    seconds: float = 0.0
    bad: int = 0
    short: int = 0
    lost: int = 0
    stalls: int = 0
    drawn: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def clips_per_second(self) -> float:
        return self.clips / self.seconds if self.seconds else 0.0

    @property
    def wait_share(self) -> float:
        """Part of the time that was spent waiting for data."""
        return self.wait_seconds / self.seconds if self.seconds else 0.0


class ClipStream(IterableDataset[Delivery]):
    """Batches `first` .. `last` of a plan, this worker's share of them, through a WebDataset pipeline."""

    def __init__(self, plan: BatchPlan, cut: CutClips, first: int, last: int) -> None:
        super().__init__()
        self._plan, self._cut, self._first, self._last = plan, cut, first, last

    def __iter__(self) -> Iterator[Delivery]:
        worker = get_worker_info()
        number, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        yield from through(self._cut, self._plan.batches(self._first + number, self._last, step))

    def in_threads(self, workers: int) -> Iterator[Delivery]:
        """The same, by threads of this process, which share its memory of decoded pictures."""
        plan, cut = self._plan, self._cut
        pending: deque[Future[Delivery]] = deque()
        with ThreadPoolExecutor(workers, "jepa-data") as pool:
            try:
                for number in range(self._first, self._last):
                    pending.append(pool.submit(lambda n: next(through(cut, iter([plan.batch(n)]))), number))
                    if len(pending) >= AHEAD * workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()


def through(cut: CutClips, batches: Iterator[list[Slot]]) -> Iterator[Delivery]:
    """The pipeline. An error of the data comes as a value: torch would bury its one line in a worker's traceback."""
    try:
        yield from DataPipeline(lambda: batches, cut, collate)
    except DataError as error:
        yield Delivery(None, (), error=error)


class ClipLoader:
    """Iterates over `len(self)` batches; made by `make_loader`.

    In training, a pass that was broken off is continued, and the next pass goes on where the last one ended.
    `state_dict()` is the number of batches handed out, and a new loader that loads it yields the rest: Lightning
    stores it in its checkpoints by itself. In evaluation every pass starts at the beginning.

    Attributes:
        shards: the first source; `sources`: all of them.
        corpora: what is drawn from, source by source.
        action_size: width of `ClipBatch.actions`; 0 if there are none.
        bad: samples that could not be read, by key.
        notes: what was amiss when the shards were opened, a line each.
    """

    def __init__(
        self,
        config: StreamConfig,
        sources: Sequence[ShardSet],
        split: str,
        seed: int,
        total_batches: int | None,
        shuffle: bool,
        rank: int,
        world_size: int,
    ) -> None:
        self.config, self.sources, self.shards, self.split = config, tuple(sources), sources[0], split
        self.stats, self.bad = LoaderStats(), dict[str, Bad]()
        self.action_size, mismatches = fitting(sources, config)
        self.notes = (*(note for source in sources for note in source.notes), *mismatches)
        self._candidates = sum(len(s.split(split)) + len(s.lost_of(split)) for s in sources)
        self.stats.lost = sum(len(s.lost_of(split)) for s in sources)
        self.corpora = [self._select(source) for source in sources]
        self._check_budget()
        self.plan = self._plan(seed, shuffle, rank, world_size)
        batches = self.plan.epoch_batches if total_batches is None else total_batches
        self._batches = batches if shuffle else min(batches, self.plan.epoch_batches)
        self._cut = CutClips(config, self.corpora, self.plan)
        self._consumed = 0

    def __len__(self) -> int:
        return self._batches

    @property
    def samples(self) -> Corpus:
        """What is drawn from, where there is one source."""
        return self.corpora[0]

    @property
    def position(self) -> dict[str, Any]:
        """Batches handed out, and which epoch each source is in (a fraction)."""
        drawn = self.plan.drawn(self._consumed)
        epochs = [round(n / source.epoch_places, 4) for n, source in zip(drawn, self.plan.sources, strict=True)]
        return {"batch": self._consumed, "epochs": epochs}

    def state_dict(self) -> dict[str, int]:
        return {"batch": self._consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._consumed = int(state["batch"])

    def __iter__(self) -> Iterator[ClipBatch]:
        if not self.plan.endless:
            self._consumed = 0
        done = self._consumed % max(1, self._batches)
        first = self._consumed if self.plan.endless else 0
        deliveries, workers = self._start(first, first - done + self._batches)
        try:
            with Watchdog(self.config.stall_seconds, workers, self._stalled) as dog:
                since = time.perf_counter()
                while True:
                    asked = time.perf_counter()
                    dog.waiting()
                    delivery = self._next(deliveries)
                    dog.arrived()
                    if delivery is None:
                        return
                    self.stats.wait_seconds += time.perf_counter() - asked
                    self._account(delivery)
                    self._consumed += 1
                    if delivery.batch is not None:
                        self.stats.clips += len(delivery.batch)
                        self.stats.seconds += time.perf_counter() - since
                        since = time.perf_counter()
                        yield delivery.batch
        finally:
            # Stops the workers now: left to the garbage collector, torch waits five seconds for each.
            del deliveries

    def _next(self, deliveries: Iterator[Delivery]) -> Delivery | None:
        try:
            return next(deliveries, None)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                f"a worker of the data stream ended in its work ({str(error).splitlines()[0]}). It may have run "
                "out of memory: lower data.cache_mib or data.workers; or a video crashed its decoder: see which by "
                f"`jepa data check {self.shards.url}`"
            ) from error

    def _start(self, first: int, last: int) -> tuple[Iterator[Delivery], Any]:
        """Deliveries, and a function that gives the process numbers of the workers."""
        stream, workers = ClipStream(self.plan, self._cut, first, last), self.config.workers
        if workers == 0:
            return iter(stream), lambda: ()
        if self.config.worker_kind == "thread":
            return stream.in_threads(workers), lambda: ()
        deliveries = iter(
            DataLoader(
                stream,
                batch_size=None,
                num_workers=workers,
                multiprocessing_context=_process_context(),
                prefetch_factor=AHEAD,
                worker_init_fn=answer_with_stacks,
            )
        )
        return deliveries, lambda: [worker.pid for worker in getattr(deliveries, "_workers", ())]

    def _stalled(self, seconds: float) -> None:
        self.stats.stalls += 1
        warnings.warn(
            f"no batch has arrived for {seconds:.0f} s (data.stall_seconds); the stacks of all threads are above",
            stacklevel=2,
        )

    def _account(self, delivery: Delivery) -> None:
        """Count what could not be read, and stop the run when it is too much."""
        if delivery.error is not None:
            raise delivery.error
        self.stats.drawn.update(self.config.sources[source].shards for source in delivery.sources)
        for bad in delivery.bad:
            self.stats.kinds[bad.kind] += 1
            self._remember(bad)
        self._check_budget()

    def _remember(self, bad: Bad) -> None:
        if bad.key in self.bad:
            return
        self.bad[bad.key] = bad
        self.stats.bad += 1
        if self.config.quarantine is not None:
            with Path(self.config.quarantine).open("a") as file:
                file.write(json.dumps(asdict(bad)) + "\n")

    def _check_budget(self) -> None:
        count, limit = len(self.bad) + self.stats.lost, self.config.max_bad_fraction
        # One bad sample passes even where it is more than the fraction: small sets would have no tolerance at all.
        if count <= (max(1, int(limit * self._candidates)) if limit > 0 else 0):
            return
        causes = [f"{bad.shard} {bad.key} ({bad.kind})" for bad in self.bad.values()]
        causes += [f"{key} (cut off)" for source in self.sources for key in source.lost_of(self.split)]
        names = ", ".join(causes[:8]) + (", …" if len(causes) > 8 else "")
        where = ", ".join(source.url for source in self.sources)
        raise DataError(
            f"{where}: {count} of {self._candidates} samples of {self.split!r} cannot be read: {names}. "
            f"data.max_bad_fraction allows {limit:g}: make or copy these shards again, or raise it"
        )

    def _select(self, shards: ShardSet) -> Corpus:
        selected = select(shards, self.split, self.config)
        self.stats.short += selected.short
        for bad in selected.bad:
            self._remember(bad)
        return selected.corpus

    def _plan(self, seed: int, shuffle: bool, rank: int, world_size: int) -> BatchPlan:
        config, weights = self.config, [source.weight for source in self.config.sources]
        plans = tuple(
            SourcePlan(
                corpus.shard_sizes(),
                config.clips_per_video,
                max(1, round(RUN_BATCHES * config.batch_size * weight / sum(weights))),
                config.window_shards,
                seed,
                number,
            )
            for number, (corpus, weight) in enumerate(zip(self.corpora, weights, strict=True))
        )
        return BatchPlan(plans, tuple(weights), config.batch_size, seed, shuffle, rank, world_size)


def fitting(sources: Sequence[ShardSet], config: StreamConfig) -> tuple[int, list[str]]:
    """Width of the actions, and what sources do not have in common. Raises DataError if their actions differ."""
    manifests = [source.manifest for source in sources]
    widths = [manifest.action_width(config.fps, config.stride) for manifest in manifests]
    if len(set(widths)) > 1:
        found = ", ".join(f"{source.url}: {width}" for source, width in zip(sources, widths, strict=True))
        raise DataError(
            f"data.shards: the actions of the sources have different widths ({found}). Mix corpora of one kind"
        )
    notes = []
    if len({manifest.state_names for manifest in manifests}) > 1:
        notes.append("data.shards: the sources have different states; batches that mix them carry none")
    return widths[0], notes


def _process_context() -> BaseContext:
    """How workers are started: from a server without threads, which has imported what they need, where there is one.

    Forking the training process can deadlock in libraries that have threads; starting each worker from nothing imports
    torch once a worker.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*HEAVY, __name__])
    return context
