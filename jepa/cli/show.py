"""What the verbs print: what the packages log, bars on a terminal, tables."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import typer

PACKAGES = ("jepa", "jepa_data", "jepa_probes")


class Messages(logging.Handler):
    """Prints the bare message: to stdout, and warnings to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(record.getMessage(), err=record.levelno >= logging.WARNING)


HANDLER = Messages()


def show_messages() -> None:
    """Print what the packages log from INFO on, in the first process of a run. Calling it again changes nothing."""
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.addHandler(HANDLER)
        logger.setLevel(logging.INFO if is_first_process() else logging.ERROR)


def is_first_process() -> bool:
    """Of those that torchrun, srun or Lightning started for a run; all of them would log the same."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with the time left, on a terminal; nothing elsewhere. Yields a function that takes the count."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def counting_steps() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each step of a longer work. Yields a function that takes the step's name, the count and the total."""
    with ExitStack() as stack:
        bars: dict[str, Callable[[int], None]] = {}

        def progress(step: str, done: int, total: int) -> None:
            if step not in bars:
                stack.close()  # the bar of the step before
                bars[step] = stack.enter_context(counting(step, total))
            bars[step](done)

        yield progress


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, the first as a heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    return "\n".join([line(rows[0]), line(["-" * width for width in widths]), *map(line, rows[1:])])
