"""Jobs to processes, one at a time each. A job that kills its process, or is not heard of for too long, costs itself.

parent   job ──→ process 0   work(job, alive) ──→ result
         job ──→ process 1   … killed by its decoder ──→ Lost("crashed"), and a new process 1
         job ──→ process 2   … no `alive()` for timeout_seconds ──→ Lost("timeout"), killed, a new process 2
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, Literal, TypeVar

from jepa_data.errors import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")
Alive = Callable[[], None]
START_SECONDS = 300.0  # for a new process to import what it needs, on a machine that is busy
READY, ALIVE, DONE, FAILED = range(4)


@dataclass(frozen=True)
class Lost:
    """The result of a job whose process ended, or was ended, before there was one."""

    kind: Literal["crashed", "timeout"]
    detail: str


def run_isolated(
    work: Callable[[Job, Alive], Result], jobs: Iterable[Job], processes: int, timeout_seconds: float
) -> Iterator[tuple[Job, Result | Lost]]:
    """Each job with its result, in the order they are finished.

    Args:
        work: a function of a module, or a partial of one; sent to each process once. It calls its second argument
            whenever it got on, at least every `timeout_seconds`. What it raises is raised here.
        jobs: taken one by one, as processes become free.
    """
    source, workers = iter(jobs), [_Worker[Job, Result](work, timeout_seconds) for _ in range(processes)]
    try:
        while True:
            for worker in workers:
                if not worker.busy:
                    worker.give(source)
            busy = [worker for worker in workers if worker.busy]
            if not busy:
                return
            first = min(worker.deadline for worker in busy)
            wait([worker.connection for worker in busy], max(0.0, first - time.monotonic()))
            for worker in busy:
                yield from worker.heard()
    finally:
        for worker in workers:
            worker.end()


class _Worker(Generic[Job, Result]):
    """One process, and the job it is at."""

    def __init__(self, work: Callable[[Job, Alive], Result], timeout_seconds: float) -> None:
        self._work, self._timeout = work, timeout_seconds
        self._jobs: list[Job] = []  # none or one
        self._start()

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def give(self, source: Iterator[Job]) -> None:
        """Take the next job, if there is one."""
        for job in source:
            self._jobs = [job]
            if self._ready:
                self._send()
            return

    def heard(self) -> Iterator[tuple[Job, Result | Lost]]:
        """The finished job, if it is."""
        try:
            while self.busy and self.connection.poll():
                what, value = self.connection.recv()
                if what == READY:
                    self._ready = True
                    self._send()
                elif what == ALIVE:
                    self.deadline = time.monotonic() + self._timeout
                elif what == FAILED:
                    raise value
                else:
                    yield self._jobs.pop(), value
            if self.busy and time.monotonic() > self.deadline:
                yield self._lost("timeout", f"nothing was heard of it for {self._timeout:g} s")
        except (EOFError, ConnectionError):
            yield self._lost("crashed", f"its decoder ended the process ({self._ending()})")

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # nothing of this program's threads and files is carried over
        self.connection, other = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(self._work, other), daemon=True)
        self.process.start()
        other.close()  # so that the end of the process is the end of the connection
        self._ready, self.deadline = False, time.monotonic() + START_SECONDS

    def _send(self) -> None:
        self.deadline = time.monotonic() + self._timeout
        try:
            self.connection.send(self._jobs[0])
        except ConnectionError:  # it died while it had nothing to do
            self.end()
            self._start()

    def _lost(self, kind: Literal["crashed", "timeout"], detail: str) -> tuple[Job, Lost]:
        if not self._ready:
            raise DataError(f"a process that looks at the data did not start ({self._ending()}). Use fewer: --workers")
        self.end()
        self._start()
        return self._jobs.pop(), Lost(kind, detail)

    def _ending(self) -> str:
        self.process.join(1)
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}"


def _serve(work: Callable[[Job, Alive], Result], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started it
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    connection.send((READY, None))
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            connection.send((DONE, work(job, lambda: connection.send((ALIVE, None)))))
        except Exception as error:  # noqa: BLE001  raised again where the results are wanted
            connection.send((FAILED, error))


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
