"""A thread that looks after a stream, while the context that it stands for is open."""

import threading
from abc import ABC, abstractmethod
from typing import Self

TICK_SECONDS = 1.0  # the longest time between two looks


class Watcher(ABC):
    """A context manager whose thread calls `look` until the context or the watcher ends.

    Args:
        name: of the thread.
        seconds: a wait longer than this is to be noticed: `look` is called four times as often, at least every
            TICK_SECONDS.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._tick = min(TICK_SECONDS, seconds / 4)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    @abstractmethod
    def look(self) -> None: ...

    def end(self) -> None:
        """Look no more. May be called from `look`."""
        self._over.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._tick):
            self.look()
