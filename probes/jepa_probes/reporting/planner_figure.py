"""Success against CPU time a plan, of the planners that `jepa plan --planners` compared: one panel a world."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jepa.config import UserError
from jepa_probes.planning.planner_comparison import PlannerComparison, pooled
from jepa_probes.reporting.curves import INK, frame_quietly

COLORS = ("#3355dd", "#d9480f", "#12805c", "#a61e8c", "#8a6d00", "#0b7285", "#5f3dc4", "#495057")
MARKERS = "osD^vP*X"
SUFFIXES = (".svg", ".png")
SHARE = 0.1  # of the CPU time of the baseline: a line marks it


def draw_planners(comparisons: Sequence[PlannerComparison], path: Path) -> None:
    """Write an SVG or a PNG.

    Args:
        comparisons: of the same planners; those in one world are pooled.
        path: its suffix is the format.

    Raises:
        UserError: another suffix, or comparisons of one world are of different planners.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: expected a file that ends in {' or '.join(SUFFIXES)}")
    panels: dict[str, list[PlannerComparison]] = defaultdict(list)
    for comparison in comparisons:
        panels[comparison.protocol.world].append(comparison)
    figure = Figure(figsize=(4.6 * len(panels), 3.6), dpi=150, layout="constrained")
    with matplotlib.rc_context({"svg.hashsalt": "planners", "svg.fonttype": "none", "font.family": "sans-serif"}):
        FigureCanvasAgg(figure)
        lines: dict[str, Any] = {}
        for index, (world, same) in enumerate(panels.items()):
            axes = figure.add_subplot(1, len(panels), index + 1)
            axes.set_title(world, fontsize=10, color=INK["light"], loc="left")
            lines |= _panel(axes, same)
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format=path.suffix[1:], facecolor="white", metadata={"Date": None})


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
