"""`jepa report` and `jepa curves`."""

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


def curves(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, also of unfinished runs.")],
    out: Annotated[Path, typer.Option(help="The image file.")] = Path("curves.png"),
) -> None:
    """Plot the logs of several runs in the same axes: loss, collapse monitors, online probes.

    Example: jepa curves runs/a runs/b --out both.png
    """
    from jepa.config import UserError
    from jepa_probes.reporting.curves import overlay, read_metrics

    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    metrics = {}
    for name, run in zip(names, runs, strict=True):
        path = run / "logs" / "metrics.csv"
        if not path.is_file():
            raise UserError(f"{run}: no logs/metrics.csv here; give run folders, which `jepa pretrain` writes")
        metrics[name] = read_metrics(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(overlay(metrics))
    typer.echo(f"{out}: {', '.join(metrics)}")
