"""Decoders that never return: the worker that is stuck in one is ended, and the sample is left out.

    worker    marks[slot] = source, video, count ──decode──→ marks[slot] = 0
    guard     the same mark for `seconds` ──→ SIGKILL; the stream starts its workers again, without the sample

A worker that somebody has stopped (SIGSTOP) is ended too, and its sample is tried again. A worker that has ended
already blames no sample: torch notices it, and the stream says so. Where the training process itself decodes, or its
threads, nothing can end the call: the process ends, with a line that names the sample.
"""

import os
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import numpy as np
import psutil

from jepa_data.stream.watcher import TICK_SECONDS, Watcher

SampleId = tuple[int, int]  # number of the source, and of the video in it
Workers = Callable[[], dict[int, BaseProcess]]
ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


class StuckGuard(Watcher):
    """A context manager around the work of a stream.

    Args:
        marks: [slots, 3]; a row is 0 while its worker is between two samples.
        seconds: that a sample may take.
        workers: that are ready, by row; none if they are threads.
        name: of a sample, for the message.

    Attributes:
        killed: whether a worker was.
        stuck: the samples that were to blame for it.
    """

    def __init__(
        self,
        marks: np.ndarray,
        seconds: float,
        workers: Workers,
        name: Callable[[SampleId], str],
    ) -> None:
        super().__init__("jepa-data-guard", seconds)
        self.killed = False
        self.stuck = set[SampleId]()
        self._marks = marks
        self._seconds = seconds
        self._workers = workers
        self._name = name
        self._before = marks.copy()
        self._waited = np.zeros(len(marks))
        self._last = time.monotonic()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._workers = dict  # nothing that holds the workers is kept

    def look(self) -> None:
        now = time.monotonic()
        marks = self._marks.copy()
        same = (marks == self._before).all(1)
        # At most a tick is counted: a program that was stopped as a whole has not waited.
        self._waited = np.where(same, self._waited + min(now - self._last, TICK_SECONDS), 0.0)
        self._before, self._last = marks, now
        for slot in np.flatnonzero(self._waited > self._seconds).tolist():
            self._act(slot, marks[slot])
        if self.killed:
            self.end()  # the stream starts its workers again, with another guard

    def _act(self, slot: int, mark: np.ndarray) -> None:
        """A worker has the same mark for too long."""
        busy = bool(mark[0])
        workers = self._workers()
        if not workers and busy:
            self._leave(mark)
        if (worker := workers.get(slot)) is None or (status := _status(worker)) in ENDED:
            return
        stopped = status == psutil.STATUS_STOPPED
        if busy and not stopped:
            self.stuck.add((int(mark[0]) - 1, int(mark[1])))
        if busy or stopped:
            self.killed = True
            worker.kill()

    def _leave(self, mark: np.ndarray) -> None:
        sample = self._name((int(mark[0]) - 1, int(mark[1])))
        print(  # noqa: T201  nothing else of this process can still speak
            f"error: {sample}: its decoder has not returned for {self._seconds:g} s, and cannot be ended in the "
            "process that trains. Leave the sample out (data.skip), or let data.workers=1 decode: such a worker is "
            "ended, and the run goes on",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)


def _status(process: BaseProcess) -> str:
    try:
        return psutil.Process(process.pid).status()
    except psutil.Error:
        return psutil.STATUS_DEAD
