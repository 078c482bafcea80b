"""A comparison as three tables: what models cost, what they know and imagine, and what they are good for.

A row is a model; with several seeds, mean ± standard deviation. Success rates are of all tasks of all seeds.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from jepa_probes.comparison.result import CellResult, Comparison, by_model
from jepa_probes.planning.result import Success
from jepa_probes.planning.tasks import wilson
from jepa_probes.reporting.results import SHORT, aligned, mean_and_std, number, percent

HORIZON = 10  # latent steps, of what stands for only one horizon
KINDS = {"all": "state", "position": "position", "angle": "angle", "velocity": "speed", "other": "other"}
Read = Callable[[CellResult], float | None]


@dataclass(frozen=True)
class Section:
    """A table: `rows[0]` is its heading; a row begins with the name of its model. `notes`: sentences below it."""

    title: str
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Column:
    """A number of every cell, with so many digits after the point."""

    head: str
    read: Read
    digits: int = 2
    text: Callable[[float], str] | None = None

    def cell(self, cells: Sequence[CellResult]) -> str:
        values = [value for each in cells if (value := self.read(each)) is not None]
        if values and self.text:
            return self.text(statistics.fmean(values))
        return mean_and_std(list(map(float, values)), self.digits)


def report(comparison: Comparison) -> list[str]:
    """All lines, with an empty one between the tables."""
    lines = []
    for section in sections(comparison):
        lines += [section.title, *aligned(section.rows, str.rjust), *section.notes, ""]
    lines += comparison.verdicts
    lines += [f"{name} failed: {why}" for name, why in comparison.failed.items()]
    return [*lines, f"{comparison.cpu_seconds / 3600:.2f} hours of processor time"]


def sections(comparison: Comparison) -> list[Section]:
    """The tables."""
    groups = by_model(comparison.cells)
    tables = (_costs(groups), _forecasts(groups), _decisions(groups))
    return [table for table in tables if len(table.rows[0]) > 1]


def pooled(successes: Iterable[Success | None]) -> Success | None:
    """All tasks of all seeds; None if there are none."""
    known = [success for success in successes if success is not None]
    if not known:
        return None
    tasks = sum(success.tasks for success in known)
    share, low, high = wilson(sum(round(success.success * success.tasks) for success in known), tasks)
    return Success(success=share, low=low, high=high, tasks=tasks)


def _costs(groups: dict[str, list[CellResult]]) -> Section:
    columns = [
        Column("parameters", lambda c: c.parameters, text=lambda x: f"{x:,.0f}"),
        Column("of the encoder", lambda c: c.encoder_parameters, text=lambda x: f"{x:,.0f}"),
        Column("steps", lambda c: c.training and c.training.steps, text=lambda x: f"{x:,.0f}"),
        Column("CPU min", lambda c: c.training and c.training.cpu_seconds and c.training.cpu_seconds / 60),
        Column("minutes", lambda c: c.training and c.training.seconds / 60),
        Column("peak MiB", lambda c: c.training and c.training.peak_memory_mib, 0),
        Column("GPU MiB", lambda c: c.training and c.training.peak_gpu_memory_mib, 0),
        Column("frames/s", lambda c: c.frames_per_second, text=lambda x: f"{x:,.0f}"),
        Column("calls/step", lambda c: c.calls_per_step, 0),
        Column("ms/plan", lambda c: c.seconds_per_plan and 1000 * c.seconds_per_plan, 1),
    ]
    section = _table("What it takes", groups, columns)
    head = section.rows[0]
    rows = [[head[0], "method", "seeds", *head[1:]]]
    for row, cells in zip(section.rows[1:], groups.values(), strict=True):
        first = cells[0]
        method = first.method if first.baseline in (None, "random_encoder") else "–"
        rows.append([row[0], method, str(len(cells)), *row[1:]])
    notes = ["parameters: of the dynamics; calls/step: runs of the network for one imagined step."]
    return Section(section.title, rows, notes)


def _forecasts(groups: dict[str, list[CellResult]]) -> Section:
    cells = [cell for group in groups.values() for cell in group]
    horizons = sorted({error.horizon for cell in cells for error in cell.forecast.errors})
    shown = min(horizons, key=lambda h: abs(h - HORIZON))
    most = max((max(s.best_of) for cell in cells for s in cell.forecast.sampled), default=1)
    columns = [Column(f"R² {label}", _r2(kind)) for kind, label in KINDS.items()]
    columns += [Column(f"error at {h}", _error(h)) for h in horizons]
    columns += [
        Column("other actions", lambda c: c.error(shown, "shuffled")),
        Column(f"energy at {shown}", _energy(shown)),
        Column(f"best of {most}", _best(shown, most)),
        Column("NLL", lambda c: c.forecast.nll),
        Column(f"R² imagined at {shown}", lambda c: c.forecast.state_r2.get(shown)),
    ]
    notes = [
        "R²: of states on held-out episodes, read off true latents or, in the last column, off imagined ones.",
        "error: squared, over that of the last latent seen, so 1 is identity; other actions: at "
        f"{shown} steps, with those of another clip.",
        "energy, best of: of sampled rollouts, over those of the last latent; NLL: nats a number, 1.42 is a Gaussian.",
    ]
    return _table("What it knows and imagines", groups, columns, notes)


def _decisions(groups: dict[str, list[CellResult]]) -> Section:
    rows = [["model", "rank correlation", "recorded rank", "planning", "95 % interval", "inverse dynamics", "dream"]]
    columns = [
        Column("", lambda c: c.cost and c.cost.correlation),
        Column("", lambda c: c.cost and c.cost.recorded_rank),
    ]
    for name, cells in groups.items():
        plan = pooled(cell.plan for cell in cells)
        inverse = pooled(cell.agents.get("inverse_dynamics") for cell in cells)
        interval = "–" if plan is None else f"{percent(plan.low)} to {percent(plan.high)}"
        dream = [cell.dream.value for cell in cells if cell.dream is not None and cell.dream.value is not None]
        share = any(cell.dream is not None and cell.dream.tasks is not None for cell in cells)
        mean = statistics.fmean(dream) if dream else None
        row = [name, *(column.cell(cells) for column in columns)]
        row += [percent(plan and plan.success), interval, percent(inverse and inverse.success)]
        rows.append([*row, percent(mean) if share else number(mean, 1)])
    shown = [i for i in range(len(rows[0])) if i == 0 or any(row[i] != "–" for row in rows[1:])]
    notes = [
        "rank correlation: Spearman's, of latent and true cost of random plans; recorded rank: share of them that cost "
        "less than what led to the goal.",
        *_others(groups),
    ]
    return Section("What it is good for", [[row[i] for i in shown] for row in rows], notes)


def _others(groups: dict[str, list[CellResult]]) -> list[str]:
    """A line of agents that no model changes: random actions, the expert, the simulator."""
    cells = [cell for group in groups.values() for cell in group if cell.agents]
    parts = []
    for agent, label in SHORT.items():
        if agent != "inverse_dynamics" and cells and agent in cells[0].agents:
            score = cells[0].agents[agent]
            parts.append(f"{label} {percent(score.success)} ({percent(score.low)} to {percent(score.high)})")
    scores = [cell.dream_agents for group in groups.values() for cell in group if cell.dream_agents][:1]
    parts += [f"{SHORT[agent]} in dream's episodes {number(s.value, 1)}" for row in scores for agent, s in row.items()]
    return [f"The same tasks: {', '.join(parts)}."] if parts else []


def _table(
    title: str, groups: dict[str, list[CellResult]], columns: Sequence[Column], notes: Sequence[str] = ()
) -> Section:
    """A row for each model; columns without any number are left out."""
    cells = [cell for group in groups.values() for cell in group]
    used = [column for column in columns if any(column.read(cell) is not None for cell in cells)]
    rows = [["model", *(column.head for column in used)]]
    rows += [[name, *(column.cell(group) for column in used)] for name, group in groups.items()]
    return Section(title, rows, list(notes))


def _r2(kind: str) -> Read:
    return lambda cell: cell.state_r2.get(kind)


def _error(horizon: int) -> Read:
    return lambda cell: cell.error(horizon)


def _energy(horizon: int) -> Read:
    return lambda cell: (scores := cell.sampled(horizon)) and scores.energy


def _best(horizon: int, count: int) -> Read:
    return lambda cell: (scores := cell.sampled(horizon)) and scores.best_of.get(count)
