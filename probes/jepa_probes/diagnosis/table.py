"""A diagnosis as text: a table for each of its parts, and the paragraph that says what binds."""

import textwrap
from collections.abc import Sequence

from jepa_probes.diagnosis.quantities import with_unit
from jepa_probes.diagnosis.result import Diagnosis, OpenLoop
from jepa_probes.reporting.results import number, percent

RUNGS = {
    "configured": "as configured",
    "replan": "… planning again after every step",
    "refine": "… refined by 20 steps along the gradient",
    "search": "… with {times} times as many plans",
    "replan_search": "… with {times} times as many after every step",
    "goal_now": "… all else in the goal image as it is now",
    "readout": "… by the distance of states read off latents",
    "state_dynamics": "true states, dynamics learned on them",
    "simulator": "true states, true world, the same planner",
    "inverse_dynamics": "inverse dynamics, without planning",
    "random": "random actions",
    "replay": "action replay",
    "expert": "expert (oracle) policy",
}
ENCODERS = {"pretrained": "encoder", "random_init": "random init", "supervised": "supervised"}
WIDTH = 100
Row = Sequence[str]


def report(result: Diagnosis) -> list[str]:
    """All lines, with an empty one between the parts."""
    parts = [_ladder(result), _readout(result), _open_loop(result.open_loop), _costs(result)]
    lines = [line for part in parts for line in [*part, ""]]
    return [*lines, *textwrap.wrap(result.verdict, WIDTH)]


def _ladder(result: Diagnosis) -> list[str]:
    labels = {name: label.format(times=result.config["more_search"]) for name, label in RUNGS.items()}
    rows: list[Row] = [("who plans", "solved", "95 % interval", "tasks", "gains", "p", "plans", "CPU s/plan")]
    for name, label in labels.items():
        if name not in result.ladder:
            continue
        rung = result.ladder[name]
        interval = f"{100 * rung.low:.0f} … {100 * rung.high:.0f} %"
        gains = ("", "") if name == "configured" else (f"+{rung.gained} −{rung.lost}", f"{rung.p_value:.2g}")
        seconds = f"{rung.cpu_seconds_per_plan:.3f}" if rung.cpu_seconds_per_plan else ""
        plans = str(rung.plans_imagined or "")
        rows.append((label, percent(rung.success), interval, str(rung.tasks), *gains, plans, seconds))
    missing = [f"{labels[name].removeprefix('… ')}: left out, {why}" for name, why in result.left_out.items()]
    return [*_aligned(rows), *missing]


def _readout(result: Diagnosis) -> list[str]:
    """R² by quantity; of each encoder that of a linear map and that of a network."""
    names = [name for name in ENCODERS if any(name in row for row in result.readout.values())]
    rows: list[Row] = [
        ("R² on held-out episodes", *(f"{ENCODERS[n]}, {how}" for n in names for how in ("linear", "MLP")))
    ]
    for quantity, row in result.readout.items():
        scores = [score for name in names for score in (row[name].linear, row[name].mlp)]
        rows.append((quantity, *(number(score, 2) for score in scores)))
    return _aligned(rows)


def _open_loop(result: Sequence[OpenLoop]) -> list[str]:
    head = ("error after latent steps", "", "imagined", "nothing moves", "read off the truth", "learned on states")
    rows: list[Row] = [head]
    for row in result:
        errors = (row.imagined, row.still, row.read, row.on_states)
        rows.append((row.quantity, str(row.horizon), *(with_unit(error, row.unit) for error in errors)))
    return _aligned(rows)


def _costs(result: Diagnosis) -> list[str]:
    cost = result.cost
    far = result.exploitation
    correlation = "left out: this world makes no copies" if cost.correlation is None else number(cost.correlation, 2)
    rows: list[Row] = [
        (f"{cost.candidates} random plans from each of {cost.starts} starts", ""),
        ("spread of their latent costs (true costs)", f"{percent(cost.spread)} ({percent(cost.true_spread)})"),
        ("cheaper than what led to the goal", percent(cost.recorded_rank)),
        ("rank correlation of latent and true cost", correlation),
        ("imagined by plans beyond the recordings", percent(far.plans)),
        ("  by recorded actions", percent(far.recorded_actions)),
    ]
    return _aligned(rows)


def _aligned(rows: Sequence[Row]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
