"""`jepa report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    decoder_steps: Annotated[int, typer.Option(help="Training steps of the pixel decoder.")] = 250,
) -> None:
    """Draw what a run learned and write RUN/report.html, one self-contained page, and RUN/results.json."""
    from jepa.runs.report import report as run_report

    run_report(run, decoder_steps=decoder_steps, say=typer.echo)
