"""`jepa report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    decoder_steps: Annotated[
        int | None,
        typer.Option(help="Refit the pixel decoder for this many steps. [default: fit once, 250 to 1,000 steps]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder. [default: RUN]")] = None,
) -> None:
    """Write RUN/report.html, a self-contained page about the run, and RUN/results.json."""
    from jepa_probes.reporting.report import report as run_report

    run_report(run, decoder_steps=decoder_steps, out=out)
    typer.echo(f"{(out or run) / 'report.html'}")
