"""OUT/compare.html: the tables of a comparison and figures of it, in one file."""

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jepa_probes.comparison.result import CellResult, Comparison, by_model
from jepa_probes.comparison.table import HORIZON, pooled, sections
from jepa_probes.reporting.curves import COLOURS, INK, Chart, frame_quietly
from jepa_probes.reporting.html import embed_chart, render

TEMPLATE = Path(__file__).with_name("compare.html.j2")
MARKERS = "osD^vP*X"
Groups = Mapping[str, Sequence[CellResult]]
Draw = Callable[[Axes, Groups, str], None]


def write_page(comparison: Comparison, out: Path) -> Path:
    """Write OUT/compare.html."""
    groups = by_model(comparison.cells)
    hours = comparison.cpu_seconds / 3600
    seeds = len({cell.seed for cell in comparison.cells})
    drawn: dict[str, Draw] = {"Latent error over that of the last latent": _errors}
    if any(cell.plan for cell in comparison.cells):
        drawn["Tasks solved, % (95 % interval)"] = _successes
    drawn["Error of the nearest of so many samples"] = _samples
    context = {
        "name": out.name or "comparison",
        "lead": f"{len(groups)} rows, {seeds} seed{'s' * (seeds != 1)}, {hours:.2f} hours of processor time.",
        "verdicts": comparison.verdicts,
        "failed": comparison.failed,
        "charts": [embed_chart(_chart(title, draw, groups)) for title, draw in drawn.items()],
        "sections": sections(comparison),
        "config": yaml.safe_dump(comparison.config, sort_keys=False),
    }
    return render(TEMPLATE, context, out / "compare.html")


def _chart(title: str, draw: Draw, groups: Groups) -> Chart:
    images = []
    for theme in ("light", "dark"):
        figure = Figure(figsize=(4.4, 3.4), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw(axes, groups, theme)
        frame_quietly(axes, theme)
        if axes.get_legend_handles_labels()[0]:
            style = {"frameon": False, "fontsize": 7, "labelcolor": INK[theme]}
            figure.legend(loc="outside lower center", ncols=3, **style)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", transparent=True)
        images.append(buffer.getvalue())
    return Chart(title, *images)


def _errors(axes: Axes, groups: Groups, theme: str) -> None:
    """Over the latent steps imagined."""
    points = {
        name: [(e.horizon, _mean([c.error(e.horizon) for c in cells])) for e in cells[0].forecast.errors]
        for name, cells in groups.items()
    }
    _lines(axes, points, theme)
    axes.set_xlabel("latent steps", color=INK[theme], fontsize=8)


def _samples(axes: Axes, groups: Groups, theme: str) -> None:
    """Over the number of samples."""
    points = {}
    for name, cells in groups.items():
        horizons = [scores.horizon for scores in cells[0].forecast.sampled]
        if not horizons:  # an encoder without dynamics
            continue
        shown = min(horizons, key=lambda h: abs(h - HORIZON))
        scores = [each for cell in cells if (each := cell.sampled(shown))]
        points[name] = [(k, _mean([each.best_of.get(k) for each in scores])) for k in scores[0].best_of]
    _lines(axes, points, theme)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("samples", color=INK[theme], fontsize=8)


def _successes(axes: Axes, groups: Groups, theme: str) -> None:
    """A bar a model, the first on top."""
    rates = {name: rate for name, cells in groups.items() if (rate := pooled(cell.plan for cell in cells))}
    for y, rate in enumerate(rates.values()):
        sides = [[100 * (rate.success - rate.low)], [100 * (rate.high - rate.success)]]
        axes.barh(y, 100 * rate.success, color=COLOURS[theme][0], alpha=0.75, height=0.6)
        axes.errorbar(100 * rate.success, y, xerr=sides, color=INK[theme], linewidth=1, capsize=2)
    axes.set_yticks(range(len(rates)), [name.replace("_", " ") for name in rates])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)


def _lines(axes: Axes, points: Mapping[str, Sequence[tuple[int, float | None]]], theme: str) -> None:
    """A line a model, on a logarithmic scale."""
    for number, (name, line) in enumerate(points.items()):
        known = [(x, y) for x, y in line if y is not None]
        if known:
            x, y = zip(*known, strict=True)
            color = COLOURS[theme][number % len(COLOURS[theme])]
            marker = MARKERS[number % len(MARKERS)]
            label = name.replace("_", " ")
            axes.plot(x, y, color=color, marker=marker, markersize=4, linewidth=1.3, label=label)
    axes.set_yscale("log")


def _mean(values: Sequence[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
