"""Success against CPU time a plan, of the planners that `jepa plan --planners` compared: one panel a world."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jepa_probes.planning.planner_comparison import PlannerComparison, pooled
from jepa_probes.reporting.curves import INK, frame_quietly

COLORS = ("#3355dd", "#d9480f", "#12805c", "#a61e8c", "#8a6d00", "#0b7285", "#5f3dc4", "#495057")
MARKERS = "osD^vP*X"
SHARE = 0.1  # of the CPU time of the baseline: a line marks it


def draw_planners(panels: Mapping[str, Sequence[PlannerComparison]], path: Path) -> None:
    """Write an SVG.

    Args:
        panels: by title; comparisons of the same planners in several runs, which are pooled.
    """
    figure = Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained")
    with matplotlib.rc_context({"svg.hashsalt": "planners", "svg.fonttype": "none", "font.family": "sans-serif"}):
        FigureCanvasSVG(figure)
        lines: dict[str, Any] = {}
        for index, (title, comparisons) in enumerate(panels.items()):
            axes = figure.add_subplot(1, len(panels), index + 1)
            axes.set_title(title, fontsize=10, color=INK["light"], loc="left")
            lines |= _panel(axes, comparisons)
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
        figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})


def _panel(axes: Axes, comparisons: Sequence[PlannerComparison]) -> dict[str, Any]:
    """One world; what the legend names."""
    scores = pooled(comparisons)
    baseline = scores[0]
    kinds = list(dict.fromkeys(score.planner["kind"] for score in scores[1:]))
    drawn: dict[str, Any] = {}
    for kind, color, marker in zip(kinds, COLORS * 2, MARKERS * 2, strict=False):
        rows = sorted((s for s in scores[1:] if s.planner["kind"] == kind), key=lambda s: s.cpu_ms_alone)
        drawn[kind] = axes.errorbar(
            [row.cpu_ms_alone for row in rows],
            [100 * row.success for row in rows],
            [[100 * (r.success - r.low) for r in rows], [100 * (r.high - r.success) for r in rows]],
            color=color,
            marker=marker,
            markersize=5,
            linewidth=1.2,
            elinewidth=0.6,
        )
    drawn[f"{baseline.label} (baseline)"] = axes.plot(
        [baseline.cpu_ms_alone], [100 * baseline.success], "k*", markersize=11, linestyle="none"
    )[0]
    axes.axvline(SHARE * baseline.cpu_ms_alone, color="#888888", linestyle=":", linewidth=1)
    axes.axhline(100 * baseline.success, color="#888888", linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlabel("CPU ms a plan, one episode alone", color=INK["light"], fontsize=8)
    axes.set_ylabel("tasks solved, %", color=INK["light"], fontsize=8)
    frame_quietly(axes, "light")
    return drawn
