"""What was logged while training, as small line charts for light and for dark pages."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jepa.config import UserError

Series = list[tuple[int, float]]
INK = {"light": "#3c4150", "dark": "#c6cbd6"}
GRID = {"light": "#e3e5ea", "dark": "#333844"}
COLOURS = {
    "light": ("#3355dd", "#d9480f", "#12805c", "#a61e8c", "#8a6d00"),
    "dark": ("#8ea8ff", "#ff9a5c", "#4fd1a5", "#f08ad8", "#e0c04a"),
}


OVERLAID = {
    "train/loss": "loss",
    "train/cosine": "cosine of prediction and target",
    "monitor/effective_rank": "effective rank",
    "monitor/std": "std of the latents, mean",
    "monitor/min_std": "std, least dimension",
    "monitor/lidar": "LiDAR",
}


@dataclass(frozen=True)
class Chart:
    """A title, and the file's bytes for either theme."""

    title: str
    light: bytes
    dark: bytes


def read_metrics(path: Path) -> dict[str, Series]:
    """Columns of Lightning's metrics.csv as (step, value); cells that are empty or not finite are left out."""
    series: dict[str, Series] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            for name, cell in row.items():
                value = _number(cell)
                if step is not None and value is not None and name not in (None, "step", "epoch"):
                    series.setdefault(name, []).append((int(step), value))
    return series


def curves(metrics: Mapping[str, Series]) -> list[Chart]:
    """Loss and its terms, monitors, online probe, clips a second: those that were logged."""
    losses = sorted((name for name in metrics if name.startswith("train/")), key=lambda name: name != "train/loss")
    probes = [name for name in metrics if name.startswith("probe/")]
    wanted = [
        ("loss and its terms", losses, True),
        ("effective rank of the latents", ["monitor/effective_rank", "monitor/lidar"], False),
        ("spread of the latents", ["monitor/std", "monitor/min_std"], False),
        ("online probe", probes, False),
        ("clips per second", ["speed/clips_per_second"], False),
    ]
    charts = []
    for title, names, logarithmic in wanted:
        series = {name.split("/", 1)[1]: metrics[name] for name in names if metrics.get(name)}
        if series:
            charts.append(Chart(title, *(_draw(series, theme, logarithmic) for theme in ("light", "dark"))))
    return charts


def learning(history: Series, counted: str) -> Chart:
    """What a controller's dreams were worth while it learned in them; `counted` says what was done in between."""
    series = {"return": history}
    return Chart("return in the dream", *(_draw(series, theme, False, counted) for theme in ("light", "dark")))


def overlay(runs: Mapping[str, Mapping[str, Series]]) -> bytes:
    """Several runs in the same axes, a small chart for each thing that any of them logged: a PNG on white.

    Args:
        runs: their metrics by name.

    Raises:
        UserError: none of them logged anything that is drawn.
    """
    logged = {name for metrics in runs.values() for name in metrics}
    names = [name for name in OVERLAID if name in logged] + sorted(n for n in logged if n.startswith("probe/"))
    if not names:
        raise UserError(f"{', '.join(runs)}: nothing was logged yet; expected a column such as train/loss")
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.3 * rows + 0.4), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    colors = COLOURS["light"]
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, index + 1)
        drawn = [(i, metrics[name]) for i, metrics in enumerate(runs.values()) if metrics.get(name)]
        for i, points in drawn:
            axes.plot(*zip(*points, strict=True), color=colors[i % len(colors)], linewidth=1.6)
        axes.set_title(OVERLAID.get(name, name.replace("_", " ")), fontsize=9, color=INK["light"], loc="left")
        _dress(axes, "light", [value for _, points in drawn for _, value in points], name == "train/loss")
    lines = [Line2D([], [], color=colors[i % len(colors)], label=run) for i, run in enumerate(runs)]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(runs), frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def _draw(series: Mapping[str, Series], theme: str, logarithmic: bool, counted: str = "optimizer step") -> bytes:
    figure = Figure(figsize=(3.6, 2.5), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colors = COLOURS[theme]
    for i, (name, points) in enumerate(series.items()):
        steps, values = zip(*points, strict=True)
        style: dict[str, Any] = {"linewidth": 2.0, "zorder": 3} if i == 0 else {"linewidth": 1.2, "zorder": 2}
        axes.plot(
            steps,
            values,
            color=colors[i % len(colors)],
            marker="o" if len(points) < 3 else None,
            label=name.replace("_", " "),
            **style,
        )
    everything = [value for points in series.values() for _, value in points]
    _dress(axes, theme, everything, logarithmic, counted)
    if len(series) > 1:
        figure.legend(
            loc="outside lower center", ncols=3, frameon=False, fontsize=7.5, labelcolor=INK[theme], handlelength=1.2
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()


def _dress(axes: Axes, theme: str, values: Sequence[float], logarithmic: bool, counted: str = "optimizer step") -> None:
    """A quiet frame; a logarithmic axis only where values are positive and spread."""
    if logarithmic and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
    elif min(values) >= 0:
        axes.set_ylim(bottom=0, top=max(values) * 1.08 or 1)
    axes.set_xlabel(counted, color=INK[theme], fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    frame_quietly(axes, theme)


def frame_quietly(axes: Axes, theme: str) -> None:
    """Small labels and a grid behind the data, without ticks and spines."""
    axes.tick_params(colors=INK[theme], labelsize=8, length=0, which="both")
    axes.grid(color=GRID[theme], linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _number(cell: Any) -> float | None:
    """A finite number in a cell of text, or None."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
