"""Real processes that start at once: forks of one that has imported everything and computed nothing.

A fork of `python -m tests.reliability` has signals, files and an exit code of its own, as any command has, and does not
spend ten seconds on importing torch.
"""

import logging
import os
import select
import signal
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LIMIT_SECONDS = 600.0  # then a process counts as one that hangs


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code; -9 if SIGKILL ended it; None if it hung and was ended.
        errors: its stderr.
        seconds: it took.
    """

    code: int | None
    errors: str
    seconds: float

    @property
    def is_refused(self) -> bool:
        """Whether it ended with exit code 2 and one line of error, whatever it had logged before."""
        wrong = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        return self.code == 2 and len(wrong) == 1 and not self.has_traceback

    @property
    def has_traceback(self) -> bool:
        return "Traceback" in self.errors

    @property
    def last_line(self) -> str:
        return (self.errors.strip().splitlines() or [""])[-1]


class Child:
    """A fork that runs `work`, in a session of its own. `line()` reads what it tells by `tell`."""

    def __init__(self, work: Callable[[], None], folder: Path | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  it outlives this function
        self._pipe, told = os.pipe()
        self._rest = b""
        self._began = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            _work(work, told, self._errors.fileno(), folder)
        os.close(told)

    def line(self) -> str | None:
        """The next line that it tells; None if it has ended, or tells nothing for too long."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._pipe], [], [], LIMIT_SECONDS)
            data = os.read(self._pipe, 65536) if ready else b""
            if not data:
                return None
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Wait for its end, and end what hangs."""
        limit = time.monotonic() + LIMIT_SECONDS
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        while not pid and time.monotonic() < limit:
            time.sleep(0.005)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._pipe)
        self._errors.seek(0)
        errors = self._errors.read().decode(errors="replace")
        self._errors.close()
        return Ended(os.waitstatus_to_exitcode(status) if pid else None, errors, time.monotonic() - self._began)


TOLD = 3  # file descriptor of a child


def tell(line: str) -> None:
    """From a child to its parent."""
    os.write(TOLD, f"{line}\n".encode())


def forked(work: Callable[[], None], folder: Path | None = None) -> Ended:
    """Run it in a process of its own, in this folder."""
    return Child(work, folder).wait()


def command(*words: object, folder: Path | None = None) -> Ended:
    """Run `jepa` with these words."""
    return forked(lambda: jepa(*words), folder)


def jepa(*words: object) -> None:
    """The command line itself; it ends the process."""
    from jepa.cli import main

    main([str(word) for word in words])


def _work(work: Callable[[], None], told: int, errors: int, folder: Path | None) -> None:
    """What a fork does, up to its end."""
    code = 1
    try:
        os.setsid()
        os.dup2(errors, 2)
        os.dup2(told, TOLD)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.__stderr__ = sys.stderr
        sys.modules["__main__"] = types.ModuleType("__main__")  # workers would import the program of the tests
        logging.getLogger().handlers.clear()
        if folder is not None:
            os.chdir(folder)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  nothing may go on in the parent's place
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
