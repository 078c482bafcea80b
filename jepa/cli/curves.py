"""`jepa curves`."""

from pathlib import Path
from typing import Annotated

import typer


def curves(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, also of unfinished runs.")],
    out: Annotated[Path, typer.Option(help="The image file.")] = Path("curves.png"),
    planners: Annotated[
        bool, typer.Option("--planners", help="Plot success against CPU time, of `jepa plan --planners`.")
    ] = False,
) -> None:
    """Plot the logs of several runs in the same axes: loss, collapse monitors, online probes.

    With --planners, plot what their planners solved against CPU time: one panel a world, PNG or SVG.

    \b
    jepa curves runs/a runs/b --out both.png
    jepa curves runs/demo runs/two-rooms --planners --out planners.svg
    """
    if planners:
        from jepa_probes.planning.planner_comparison import PlannerComparison
        from jepa_probes.reporting.planner_figure import draw_planners

        draw_planners([PlannerComparison.read(run) for run in runs], out)
    else:
        _draw_logs(runs, out)
    typer.echo(f"{out}: {', '.join(_names(runs))}")


def _draw_logs(runs: list[Path], out: Path) -> None:
    from jepa.config import UserError
    from jepa_probes.reporting.curves import overlay, read_metrics

    metrics = {}
    for name, run in zip(_names(runs), runs, strict=True):
        path = run / "logs" / "metrics.csv"
        if not path.is_file():
            raise UserError(f"{run}: no logs/metrics.csv here; give run folders, which `jepa pretrain` writes")
        metrics[name] = read_metrics(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(overlay(metrics))


def _names(runs: list[Path]) -> list[str]:
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]
