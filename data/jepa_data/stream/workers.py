"""Workers that decode: the training process, its threads, or other processes. All deliver the same batches.

    BatchPlan -> [ClipIndex, ...] -> ClipReader -> [sample, ...] -> collate -> WorkerBatch
    (which)                     (read, decode, cut)          (stack)

Workers share out the batches: worker w of W takes batches w, w + W, w + 2W, ...
"""

import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Literal

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset.pipeline import DataPipeline

from jepa_data.errors import DataError
from jepa_data.process_pool import end_with_parent
from jepa_data.stream.clips import ClipReader, WorkerBatch, collate
from jepa_data.stream.plan import BatchPlan, ClipIndex
from jepa_data.stream.stuck import SampleId, StuckGuard, Workers
from jepa_data.stream.watchdog import answer_with_stacks

# What takes a worker seconds to import; named one by one, because the server may not see this package on its path.
HEAVY = ("numpy", "torch", "av", "pydantic", "jaxtyping", "webdataset")
AHEAD = 2  # batches each worker prepares before they are asked for
GRACE = 5.0  # seconds for a decoder that gave up to say so


@dataclass(eq=False)
class ClipStream(IterableDataset[WorkerBatch]):
    """Batches `first` .. `last` of a plan, this worker's share of them, through a WebDataset pipeline."""

    plan: BatchPlan
    reader: ClipReader
    first: int
    last: int

    def __iter__(self) -> Iterator[WorkerBatch]:
        batches = self.plan.batches(self.first, self.last)
        if (worker := get_worker_info()) is not None:
            batches = self.plan.batches(self.first + worker.id, self.last, worker.num_workers)
        yield from through(self.reader, batches)

    def by(self, workers: int, kind: Literal["process", "thread"]) -> tuple[Iterator[WorkerBatch], Workers]:
        """The batches in order, and a function that returns the worker processes that are ready, by number."""
        if workers == 0:
            return iter(self), dict
        if kind == "thread":
            return self._in_threads(workers), dict
        # A worker that does not listen yet would be ended by the signal that asks for its stacks.
        ready = torch.zeros(workers, dtype=torch.uint8).share_memory_()
        batches = iter(
            DataLoader(
                self,
                batch_size=None,
                num_workers=workers,
                multiprocessing_context=_process_context(),
                prefetch_factor=AHEAD,
                worker_init_fn=functools.partial(_init_worker, ready, os.getpid()),
            )
        )
        processes = dict(enumerate(getattr(batches, "_workers", ())))
        return batches, lambda: {number: each for number, each in processes.items() if ready[number]}

    def _in_threads(self, workers: int) -> Iterator[WorkerBatch]:
        """Like worker processes, but with threads, which share the cache of decoded images."""
        pending: deque[Future[WorkerBatch]] = deque()
        with ThreadPoolExecutor(workers, "jepa-data") as pool:
            try:
                for number in range(self.first, self.last):
                    pending.append(
                        pool.submit(lambda n: next(through(self.reader, iter([self.plan.batch(n)]))), number)
                    )
                    if len(pending) >= AHEAD * workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()


@dataclass(eq=False)
class GuardedStream:
    """Batches `first` .. `last` of a plan. Workers that are stuck are ended, and started again where they were.

    Attributes:
        workers: returns those that are ready, by number.
    """

    plan: BatchPlan
    reader: ClipReader
    first: int
    last: int

    def __post_init__(self) -> None:
        self.workers: Workers = dict

    def __iter__(self) -> Generator[WorkerBatch, None, None]:
        config = self.reader.config
        at = self.first
        while True:
            self.reader.marks.zero_()
            stream = ClipStream(self.plan, self.reader, at, self.last)
            batches, self.workers = stream.by(config.workers, config.worker_kind)
            guard = StuckGuard(self.reader.marks.numpy(), self._seconds(), self.workers, self._name)
            try:
                with guard:
                    for batch in batches:
                        at += 1
                        yield batch
                return
            except (RuntimeError, ConnectionError, EOFError, FileNotFoundError):  # torch noticed that a worker is gone
                if not guard.killed:
                    raise
                self.reader.stuck |= guard.stuck
            finally:
                workers = self.workers()
                self.workers = dict
                del batches
                for worker in workers.values():  # one that is stuck does not listen
                    worker.kill()

    def pids(self) -> list[int]:
        """Of the worker processes that are ready."""
        return [worker.pid for worker in self.workers().values() if worker.pid is not None]

    def _seconds(self) -> float:
        """Time limit of a sample: a decoder that still responds gives up after `decode_seconds`, well before it."""
        config = self.reader.config
        fetching = any(corpus.store.folder is None for corpus in self.reader.corpora)
        return (
            config.decode_seconds
            + max(config.decode_seconds, GRACE)
            + fetching * config.remote.attempts * config.remote.timeout_seconds
        )

    def _name(self, at: SampleId) -> str:
        corpus = self.reader.corpora[at[0]]
        sample = corpus[at[1]]
        return f"{corpus.store.url}/{sample.shard}: sample {sample.key!r}"


def through(reader: ClipReader, batches: Iterator[list[ClipIndex]]) -> Iterator[WorkerBatch]:
    """Run the pipeline. Data errors are returned as values: torch would hide their one line in a worker's traceback."""
    try:
        yield from DataPipeline(lambda: batches, reader, collate)
    except DataError as error:
        yield WorkerBatch(None, (), error=error)


def _init_worker(ready: torch.Tensor, owner: int, worker: int) -> None:
    """Runs first in a worker.

    What ends a run is sent to all processes of a terminal or a job of Slurm. Workers go on until the training process
    needs no more batches: it ends its step, saves, and ends them. So SIGTERM counts only if it comes from there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_on_request, args=(owner,), daemon=True).start()
    end_with_parent()  # torch watches the fork server, and that lives as long as a worker
    answer_with_stacks()
    ready[worker] = 1


def _end_on_request(owner: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != owner:
        pass
    os._exit(0)


def _process_context() -> BaseContext:
    """Start method of the workers: a fork server without threads that has imported all modules, if available.

    Forking the training process can deadlock in libraries with threads. Spawning imports torch in every worker.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*HEAVY, __name__])
    return context
