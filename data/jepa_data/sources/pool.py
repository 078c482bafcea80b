"""Jobs to processes, results in the order of the jobs, at most two jobs a process under way.

Processes are started afresh (spawn), so they hold nothing of the program that started them. One that dies takes all
with it; the jobs that were under way are then tried one at a time, and the one that does it again is given up.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Generic, Self, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
IN_FLIGHT = 2  # jobs a process: one at work, one ready


@dataclass
class _Entry(Generic[Job, Result]):
    job: Job
    future: "Future[Result] | None" = None


class OrderedPool(Generic[Job, Result]):
    """Processes that work on jobs. Use it as a context manager.

    Args:
        work: a function of a module, called in the processes.
        crashed: the result of a job that killed its process.
        rest: further jobs that a result asks for; they come before those that were waiting.
        processes: how many.
    """

    def __init__(
        self,
        work: Callable[[Job], Result],
        crashed: Callable[[Job], Result],
        rest: Callable[[Result], Sequence[Job]],
        processes: int,
    ) -> None:
        self._work, self._crashed, self._rest, self._processes = work, crashed, rest, processes
        self._context = multiprocessing.get_context("spawn")
        # Nothing is ever sent: it closes when this program ends or gives up, and the processes end with it.
        self._lifeline, self._held = self._context.Pipe(duplex=False)
        self._executor = self._start()

    def run(self, jobs: Iterable[Job]) -> Iterator[Result]:
        """The result of each job, in order. What `work` raises is raised here."""
        waiting, source, alone = deque[_Entry[Job, Result]](), iter(jobs), 0
        while True:
            missing = max(0, self._processes * IN_FLIGHT - len(waiting))
            waiting.extend(_Entry(job) for job in islice(source, missing))
            if not waiting:
                return
            try:
                self._submit(islice(waiting, 1 if alone else self._processes * IN_FLIGHT))
                future = waiting[0].future
                assert future is not None
                result = future.result()
            except BrokenProcessPool:
                under_way = self._recover(waiting)
                done = waiting[0].future is not None  # another one broke the pool; this one has its result
                if done or (alone == 0 and under_way != 1):
                    alone = max(alone, under_way)
                    continue
                result = self._crashed(waiting[0].job)
            waiting.popleft()
            alone = max(0, alone - 1)
            waiting.extendleft(_Entry(job) for job in reversed(self._rest(result)))
            yield result

    def close(self) -> None:
        """Wait for the jobs at work; the others are not begun."""
        self._executor.shutdown(cancel_futures=True)
        self._held.close()
        self._lifeline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._held.close()  # nobody waits for the jobs at work
        self.close()

    def _submit(self, entries: Iterable[_Entry[Job, Result]]) -> None:
        for entry in entries:
            if entry.future is None:
                entry.future = self._executor.submit(self._work, entry.job)

    def _recover(self, waiting: Iterable[_Entry[Job, Result]]) -> int:
        """New processes. Finished results are kept; the number of jobs that were under way."""
        self._executor.shutdown(cancel_futures=True)
        under_way = 0
        for entry in waiting:
            if entry.future is not None and (
                entry.future.cancelled() or isinstance(entry.future.exception(), BrokenProcessPool)
            ):
                entry.future, under_way = None, under_way + 1
        self._executor = self._start()
        return under_way

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._processes, mp_context=self._context, initializer=_begin, initargs=(self._lifeline,)
        )


def _begin(lifeline: Connection) -> None:
    """In a new process: Ctrl-C is for the program that started it, and it must not outlive that program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    wait([lifeline])
    os._exit(1)
