"""Jobs to processes, one at a time each. A job that kills its process, or is not heard of for too long, costs itself.

parent   job ──→ process 0   work(job, alive) ──→ result
         job ──→ process 1   … killed by its decoder ──→ Lost("crashed"), and a new process 1
         job ──→ process 2   … no `alive()` for timeout_seconds ──→ Lost("timeout"), killed, a new process 2

Each process has a pipe of its own: one that dies holds no lock that another one waits for. (Pebble's processes share
one pipe and its lock, and its time limit is for a whole job: `alive()` could not extend it.)
"""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Literal, TypeVar, cast

from jepa_data.errors import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")
Alive = Callable[[], None]
IN_FLIGHT = 2  # jobs a process whose results are kept until it is their turn
START_SECONDS = 300.0  # for a new process to import what it needs, on a machine that is busy
READY, ALIVE, DONE, FAILED = range(4)


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class WorkerFailure:
    """The result of a job whose process ended, or was ended, before there was one."""

    kind: Literal["crashed", "timeout"]
    detail: str


@dataclass
class _Task(Generic[Job, Result]):
    job: Job
    begun: bool = False
    finished: bool = False
    result: "Result | WorkerFailure" = field(init=False)  # once it is finished


def run_in_processes(
    work: Callable[[Job, Alive], Result], jobs: Iterable[Job], processes: int, timeout_seconds: float
) -> Generator[tuple[Job, Result | WorkerFailure], None, None]:
    """Each job with its result, in the order they are finished.

    Args:
        work: a function of a module, or a partial of one; sent to each process once. It calls its second argument
            whenever it got on, at least every `timeout_seconds`. What it raises is raised here.
        jobs: taken one by one, as processes become free.
    """
    tasks: Iterator[_Task[Job, Result]] = (_Task(job) for job in jobs)
    for task in _run(work, lambda: next(tasks, None), processes, timeout_seconds):
        yield task.job, task.result


def run_in_order(
    work: Callable[[Job, Alive], Result],
    jobs: Iterable[Job],
    rest: Callable[[Result], Sequence[Job]],
    processes: int,
    timeout_seconds: float = math.inf,
) -> Generator[tuple[Job, Result | WorkerFailure], None, None]:
    """Each job with its result, in the order of the jobs; at most two jobs a process are taken ahead.

    Args:
        work, jobs, timeout_seconds: as for `run_in_processes`.
        rest: further jobs that a result asks for; they come right after it.
    """
    tasks: Iterator[_Task[Job, Result]] = (_Task(job) for job in jobs)
    waiting = deque[_Task[Job, Result]]()

    def take() -> _Task[Job, Result] | None:
        if len(waiting) < processes * IN_FLIGHT and all(task.begun for task in waiting):
            waiting.extend(islice(tasks, 1))
        return next((task for task in waiting if not task.begun), None)

    for _ in _run(work, take, processes, timeout_seconds):
        while waiting and waiting[0].finished:
            task = waiting.popleft()
            if not isinstance(task.result, WorkerFailure):
                waiting.extendleft(_Task(job) for job in reversed(rest(cast(Any, task.result))))
            yield task.job, task.result


def _run(
    work: Callable[[Job, Alive], Result],
    take: Callable[[], _Task[Job, Result] | None],
    processes: int,
    timeout_seconds: float,
) -> Iterator[_Task[Job, Result]]:
    """Finished tasks. Processes are started when there is something for them to do."""
    workers = list[_Worker[Job, Result]]()
    try:
        while True:
            while sum(worker.task is not None for worker in workers) < processes and (task := take()):
                idle = next((worker for worker in workers if worker.task is None), None)
                if idle is None:
                    idle = _Worker[Job, Result](work, timeout_seconds)
                    workers.append(idle)
                idle.submit(task)
            busy = [worker for worker in workers if worker.task is not None]
            if not busy:
                return
            left = min(worker.deadline for worker in busy) - time.monotonic()
            wait([worker.connection for worker in busy], None if math.isinf(left) else max(0.0, left))
            for worker in busy:
                yield from worker.poll()
    finally:
        for worker in workers:
            worker.end()


@dataclass
class _Worker(Generic[Job, Result]):
    """One process, and the task it is at."""

    work: Callable[[Job, Alive], Result]
    timeout_seconds: float
    task: _Task[Job, Result] | None = None

    def __post_init__(self) -> None:
        self._start()

    def submit(self, task: _Task[Job, Result]) -> None:
        """Begin a task."""
        task.begun = True
        self.task = task
        if self._ready:
            self._send(task.job)

    def poll(self) -> Iterator[_Task[Job, Result]]:
        """The finished task, if it is."""
        try:
            while self.task and self.connection.poll():
                what, value = self.connection.recv()
                if what == READY:
                    self._ready = True
                    self._send(self.task.job)
                elif what == ALIVE:
                    self.deadline = time.monotonic() + self.timeout_seconds
                elif what == FAILED:
                    raise value
                else:
                    yield self._finished(value)
            if self.task and time.monotonic() > self.deadline:
                yield self._lost("timeout", f"nothing was heard of it for {self.timeout_seconds:g} s")
        except (EOFError, ConnectionError):
            yield self._lost("crashed", f"its decoder ended the process ({self._ending()})")

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # nothing of this program's threads and files is carried over
        self.connection, other = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(self.work, other), daemon=True)
        self.process.start()
        other.close()  # so that the end of the process is the end of the connection
        self._ready = False
        self.deadline = time.monotonic() + START_SECONDS

    def _send(self, job: Job) -> None:
        self.deadline = time.monotonic() + self.timeout_seconds
        try:
            self.connection.send(job)
        except ConnectionError:  # it died while it had nothing to do
            self.end()
            self._start()

    def _lost(self, kind: Literal["crashed", "timeout"], detail: str) -> _Task[Job, Result]:
        if not self._ready:
            raise DataError(
                f"a process that looks at the data did not start ({self._ending()}). If memory is short, use fewer "
                '(--workers); a script of your own that calls this needs `if __name__ == "__main__":`'
            )
        self.end()
        self._start()
        return self._finished(WorkerFailure(kind, detail))

    def _finished(self, result: Result | WorkerFailure) -> _Task[Job, Result]:
        task = cast(_Task[Job, Result], self.task)
        self.task = None
        task.result = result
        task.finished = True
        return task

    def _ending(self) -> str:
        self.process.join(1)
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}"


def _serve(work: Callable[[Job, Alive], Result], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started it
    end_with_parent()
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


def end_with_parent() -> None:
    """Let this process end when the program that started it does, even by `kill -9`."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
