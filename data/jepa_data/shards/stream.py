"""Shards to batches of clips: `make_loader`, what it returns, and the WebDataset pipeline behind it.

    BatchPlan -> [Slot, ...] -> CutClips -> [sample, ...] -> collate -> ClipBatch
    (which)                     (read, decode, cut)          (stack)

What stands in a batch depends on (seed, epoch, place) alone; workers only share out the batches, so any number of them
yields the same ones, and a run resumed at batch k continues exactly.
"""

import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset.pipeline import DataPipeline

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError, DecodeError
from jepa_data.sampling import possible_starts
from jepa_data.shards.clips import Bad, CutClips, Delivery, collate
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Sample
from jepa_data.shards.plan import BatchPlan, Slot
from jepa_data.types import ClipBatch

# What takes a worker seconds to import; named one by one, because the server may not see this package on its path.
HEAVY = ("numpy", "torch", "av", "pydantic", "jaxtyping", "webdataset")


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
        DataError: the folder cannot be used, a video is shorter than a clip (`config.short`), more samples are lost
            than `config.max_bad_fraction` allows, or sizes do not divide.
    """
    if config.batch_size % world_size:
        raise DataError(f"data.batch_size: {config.batch_size} clips cannot be shared evenly by {world_size} processes")
    shards = ShardSet.open(config.shards)
    loader = ClipLoader(config, shards, split, seed, total_batches, shuffle, rank, world_size)
    loader.load_state_dict({"batch": start_batch})
    return loader


@dataclass
class LoaderStats:
    """Since the loader was made: clips handed out, seconds waited for them, seconds in all, samples left out."""

    clips: int = 0
    wait_seconds: float = 0.0
    seconds: float = 0.0
    bad: int = 0
    short: int = 0
    lost: int = 0

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
        try:
            yield from DataPipeline(self._slots, self._cut, collate)
        except DataError as error:  # as a value: torch would bury its one line in the worker's traceback
            yield Delivery(None, (), error)

    def _slots(self) -> Iterator[list[Slot]]:
        worker = get_worker_info()
        number, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        yield from self._plan.batches(self._first + number, self._last, step)


class ClipLoader:
    """Iterates over `len(self)` batches; made by `make_loader`.

    In training, a pass that was broken off is continued, and the next pass goes on where the last one ended.
    `state_dict()` is the number of batches handed out, and a new loader that loads it yields the rest: Lightning
    stores it in its checkpoints by itself. In evaluation every pass starts at the beginning.

    Attributes:
        samples: what is drawn from, in the order of the shards.
        action_size: width of `ClipBatch.actions`; 0 if there are none.
        bad: samples that could not be read, by key.
        notes: what was amiss when the shards were opened, a line each.
    """

    def __init__(
        self,
        config: StreamConfig,
        shards: ShardSet,
        split: str,
        seed: int,
        total_batches: int | None,
        shuffle: bool,
        rank: int,
        world_size: int,
    ) -> None:
        self.config, self.shards, self.split = config, shards, split
        self.notes, self.stats, self.bad = shards.notes, LoaderStats(), dict[str, Bad]()
        self.action_size = shards.manifest.action_width(config.fps)
        self._candidates = len(shards.split(split)) + len(shards.lost_of(split))
        self.stats.lost = len(shards.lost_of(split))
        self.samples = self._usable()
        self._check_budget()
        self.plan = BatchPlan(
            len(self.samples), config.clips_per_video, config.batch_size, seed, shuffle, rank, world_size
        )
        batches = self.plan.epoch_batches if total_batches is None else total_batches
        self._batches = batches if shuffle else min(batches, self.plan.epoch_batches)
        self._cut = CutClips(config, shards.store, self.samples, self.plan)
        self._consumed = 0

    def __len__(self) -> int:
        return self._batches

    def state_dict(self) -> dict[str, int]:
        return {"batch": self._consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._consumed = int(state["batch"])

    def __iter__(self) -> Iterator[ClipBatch]:
        if not self.plan.endless:
            self._consumed = 0
        done = self._consumed % max(1, self._batches)
        first = self._consumed if self.plan.endless else 0
        deliveries = iter(self._workers(first, first - done + self._batches))
        try:
            since = time.perf_counter()
            while True:
                asked = time.perf_counter()
                delivery = next(deliveries, None)
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

    def _workers(self, first: int, last: int) -> DataLoader[Delivery]:
        stream = ClipStream(self.plan, self._cut, first, last)
        if self.config.workers == 0:
            return DataLoader(stream, batch_size=None)
        return DataLoader(
            stream,
            batch_size=None,
            num_workers=self.config.workers,
            multiprocessing_context=_process_context(),
            prefetch_factor=2,
        )

    def _account(self, delivery: Delivery) -> None:
        """Count what could not be read, and stop the run when it is too much."""
        if delivery.error is not None:
            raise delivery.error
        for bad in delivery.bad:
            if bad.key not in self.bad:
                self.bad[bad.key] = bad
                self.stats.bad += 1
                if self.config.quarantine is not None:
                    with Path(self.config.quarantine).open("a") as file:
                        file.write(json.dumps(asdict(bad)) + "\n")
        self._check_budget()

    def _check_budget(self) -> None:
        count, limit = len(self.bad) + self.stats.lost, self.config.max_bad_fraction
        # One bad sample passes even where it is more than the fraction: small sets would have no tolerance at all.
        if count <= (max(1, int(limit * self._candidates)) if limit > 0 else 0):
            return
        causes = [f"{bad.shard} {bad.key} ({bad.kind})" for bad in self.bad.values()]
        causes += [f"{key} (cut off)" for key in self.shards.lost_of(self.split)]
        names = ", ".join(causes[:8]) + (", …" if len(causes) > 8 else "")
        raise DataError(
            f"{self.shards.url}: {count} of {self._candidates} samples of {self.split!r} cannot be read: {names}. "
            f"data.max_bad_fraction allows {limit:g}: make or copy these shards again, or raise it"
        )

    def _usable(self) -> tuple[Sample, ...]:
        """Samples long enough for a clip. Looks at the videos of shards whose index was lost."""
        usable, short = [], []
        for sample in self.shards.split(self.split):
            try:
                sample = self.shards.probed(sample)
            except DecodeError as error:
                self.bad[sample.key] = Bad(sample.key, sample.shard, error.kind, error.detail, 0, 0)
                self.stats.bad += 1
                continue
            (usable if self._starts(sample) else short).append(sample)
        if short and self.config.short == "error":
            first, clip = short[0], _clip_text(self.config)
            raise DataError(
                f"{self.shards.path(first)}: sample {first.key!r} has {first.frames} frames, a clip needs {clip}; "
                f"{len(short)} of {len(usable) + len(short)} videos are too short. Lower it, or drop short videos with "
                "data.short: skip"
            )
        self.stats.short = len(short)
        if not usable:
            what = (
                f"all {len(short)} videos are shorter than a clip ({_clip_text(self.config)})"
                if short
                else "no samples"
            )
            raise DataError(f"{self.shards.url}: nothing to draw from in {self.split!r}: {what}")
        return tuple(usable)

    def _starts(self, sample: Sample) -> int:
        if self.config.fps is None:
            return max(0, sample.frames - self.config.clip_frames + 1)
        index = sample.video_index()
        return 0 if index is None else possible_starts(index.seconds, self.config.clip_frames, self.config.fps)


def _clip_text(config: StreamConfig) -> str:
    rate = "" if config.fps is None else f" at {config.fps:g} fps"
    return f"{config.clip_frames}{rate} (data.clip_frames)"


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
