"""`jepa report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    decoder_steps: Annotated[
        int | None, typer.Option(help="Fit the pixel decoder again, for this many steps. [default: once, 250 to 1,000]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for all that is written. [default: RUN]")] = None,
) -> None:
    """Draw what a run learned and write RUN/report.html, one self-contained page, and RUN/results.json."""
    from jepa_probes.reporting.report import report as run_report

    run_report(run, decoder_steps=decoder_steps, out=out)
    typer.echo(f"{(out or run) / 'report.html'}")
