"""A run that is asked to stop ends at the end of its step: the state is saved, and `--resume` goes on from it.

    SIGTERM, SIGUSR1 (Slurm: --signal=USR1@120)   exit code 143
    SIGINT (Ctrl-C)                               exit code 130
    trainer.max_minutes                           exit code 143

A second signal ends the process at once. From the first one to the end it takes one step and one checkpoint.
"""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import lightning as L

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
SAME_SECONDS = 1.0  # `timeout`, srun and terminals send a signal to a process and to its group: it comes twice
STOPPED = 143  # exit code, as of a process that SIGTERM ended


class Stopping(L.Callback):
    """Asks Lightning to stop. Of several processes all stop at the same step, if one of them is asked to.

    Attributes:
        reason: why the run stopped; empty if it did not.
        interrupted: whether it was Ctrl-C.
    """

    def __init__(self, max_minutes: float | None) -> None:
        self.reason = ""
        self.interrupted = False
        self._max_minutes = max_minutes
        self._began = time.monotonic()
        self._signal: signal.Signals | None = None
        self._signal_time = 0.0
        self._before: dict[int, Any] = {}  # handlers

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        reason = self._own_reason()
        stop = bool(reason)
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            self.reason = reason or "another process was asked to stop"
            self.interrupted = self._signal == signal.SIGINT
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _own_reason(self) -> str:
        if self._signal is not None:
            return self._signal.name
        minutes = (time.monotonic() - self._began) / 60
        if self._max_minutes is not None and minutes >= self._max_minutes:
            return f"trainer.max_minutes ({self._max_minutes:g})"
        return ""

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signal is None:
            self._signal = signal.Signals(number)
            self._signal_time = now
        elif now - self._signal_time > SAME_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
