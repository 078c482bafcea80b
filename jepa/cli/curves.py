"""`jepa curves`."""

from pathlib import Path
from typing import Annotated

import typer


def curves(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, running or done.")],
    out: Annotated[Path, typer.Option(help="The image file.")] = Path("curves.png"),
) -> None:
    """Draw what runs logged in the same axes: loss, monitors of collapse, online probes.

    Example: jepa curves runs/a runs/b --out both.png
    """
    from jepa.config import UserError
    from jepa_probes.reporting.curves import overlay, read_metrics

    metrics = {}
    for run in runs:
        path = run / "logs" / "metrics.csv"
        if not path.is_file():
            raise UserError(f"{run}: no logs/metrics.csv here; give run folders, which `jepa pretrain` writes")
        metrics[run.name if len({r.name for r in runs}) == len(runs) else str(run)] = read_metrics(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(overlay(metrics))
    typer.echo(f"{out}: {', '.join(metrics)}")
