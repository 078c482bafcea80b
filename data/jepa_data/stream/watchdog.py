"""Print the stack of every thread if no batch arrives for a long time, to debug hanging runs."""

import contextlib
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from jepa_data.stream.watcher import Watcher

STACKS: int | None = getattr(signal, "SIGUSR1", None)  # asks a worker for its stacks; not there on Windows


def answer_with_stacks() -> None:
    """Let a worker process print its stacks on request of the watchdog."""
    if STACKS is not None:
        faulthandler.register(STACKS, all_threads=True)


class Watchdog(Watcher):
    """A context manager: `waiting()` marks the start of a wait and `arrived()` its end.

    Args:
        seconds: longer waits are reported, once.
        workers: returns the process ids of the workers.
        report: called with the length of the wait, after the stacks are printed to stderr.
    """

    def __init__(self, seconds: float, workers: Callable[[], Sequence[int]], report: Callable[[float], None]) -> None:
        super().__init__("jepa-data-watchdog", seconds)
        self._seconds = seconds
        self._workers = workers
        self._report = report
        self._since: float | None = None  # begin of the wait, if there is one
        self._reported: float | None = None  # begin of the last wait that was reported

    def waiting(self) -> None:
        self._since = time.monotonic()

    def arrived(self) -> None:
        self._since = None

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._workers = tuple  # an error that is kept would keep what the function holds: the workers

    def look(self) -> None:
        since = self._since
        if since is not None and since != self._reported and time.monotonic() - since > self._seconds:
            self._reported = since
            self._dump()
            self._report(time.monotonic() - since)

    def _dump(self) -> None:
        if sys.__stderr__ is not None:
            with contextlib.suppress(OSError, ValueError):  # a stderr without a file
                faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        if STACKS is not None:
            for pid in self._workers():
                with contextlib.suppress(OSError):  # it ended in the meantime
                    os.kill(pid, signal.Signals(STACKS))
