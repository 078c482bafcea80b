"""RUN/logs/metrics.csv: a row at each logged step. A resumed run adds to the rows of the part before it.

Lightning's own logger starts the file from scratch, and rewrites it in place where a new column comes.

Lightning logs a step after all callbacks, so after the one that saves its checkpoint: a kill in between would lose the
row for good. `log_step` lets it log before, and the loggers here take each step once.
"""

import csv
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger

from jepa.config.writing import write_text

FILE = "metrics.csv"
STEP = "step"
WRITER = "_AsyncWriterThread"  # of TensorBoard


class MetricsLog(Logger):
    """Writes the rows that were logged whenever Lightning saves its loggers.

    Args:
        folder: of the file.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._path = folder / FILE
        self._columns: list[str] | None = None  # of the file; None: not read yet
        self._waiting: dict[int, dict[str, Any]] = {}
        self._logged: int | None = None  # step

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> None:
        return None

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None, "training counts its steps"
        if step != self._logged:
            self._waiting[step] = {STEP: step, **metrics}
            self._logged = step

    @rank_zero_only
    def save(self) -> None:
        """Append the rows; a new column makes a new file, which takes the place of the old one whole."""
        rows = list(self._waiting.values())
        self._waiting = {}
        if not rows:
            return
        if self._columns is None:
            self._columns = columns(self._path)
        new = sorted({name for row in rows for name in row}.difference(self._columns))
        if new:
            self._columns = sorted([*self._columns, *new])
            self._folder.mkdir(parents=True, exist_ok=True)
            write_rows(self._path, self._columns, [*read_rows(self._path), *rows])
            return
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerows(rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()


class EventsLog(TensorBoardLogger):
    """TensorBoard's events below RUN/logs, of each step once.

    Args:
        folder: of the events.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.parent, folder.name, "")
        self._logged: int | None = None  # step

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is None or step != self._logged:
            super().log_metrics(metrics, step)
            self._logged = step


@contextmanager
def quiet_writer() -> Iterator[None]:
    """TensorBoard writes events in a thread, whose error the next write raises: the thread need not print it too."""
    show = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not (isinstance(failed.exc_value, OSError) and type(failed.thread).__name__ == WRITER):
            show(failed)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = show


def log_step(trainer: L.Trainer) -> None:
    """Log the step at hand now, at its end, if it is one of those that are logged."""
    trainer._logger_connector.update_train_step_metrics()


def columns(path: Path) -> list[str]:
    """Of a file; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def read_rows(path: Path) -> list[dict[str, str]]:
    """The whole rows of a file; none if there is no file. A row that a kill cut off is left out."""
    if not path.is_file():
        return []
    with path.open(newline="", errors="replace") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if None not in row.values() and row.get(STEP, "").isdecimal()]


def write_rows(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the file in one step."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def keep_before(path: Path, step: int) -> None:
    """Leave out the rows that a run will log again if it goes on from `step`."""
    rows = read_rows(path)
    if rows:
        write_rows(path, columns(path), [row for row in rows if int(row[STEP]) < step])
