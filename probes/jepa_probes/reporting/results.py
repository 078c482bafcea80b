"""The numbers of a run in one place: what the verbs wrote, as `results.json`, as rows to print, and over several seeds.

RUN/config.yaml  pretrain.json  probe.json  plan.json  dream.json  timings.json   ->   collect_results(RUN)
"""

import importlib.metadata
import platform
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from jepa.config import UserError
from jepa.config.reading import parse_json
from jepa.config.result import Result
from jepa.training.result import PretrainResult
from jepa_probes.imagination.result import DreamResult
from jepa_probes.output import folders
from jepa_probes.planning.result import PlanResult
from jepa_probes.probing.result import PredictionErrors, ProbeResult, Table

PACKAGES = ("openjepa", "torch", "lightning", "numpy")
COLUMNS = {
    "pretrained": "pretrained",
    "random_init": "random init",
    "pixels": "pixels",
    "pca_pixels": "PCA of pixels",
    "supervised": "supervised",
    "floor": "floor",
}
METHODS = {
    "lewm": "LeWM",
    "flicker-vjepa": "V-JEPA 2, flicker",
    "flicker-levjepa": "LeVJEPA, flicker",
    "lewm-30min": "LeWM, 30 min",
    "vjepa": "V-JEPA",
    "vjepa21": "V-JEPA 2.1",
    "levjepa": "LeVJEPA",
    "salt": "SALT",
    "vpixel": "V-Pixel",
    "dreamer": "DreamerV3",
    "two-rooms": "LeWM, two rooms",
    "two-rooms-random-wall": "LeWM, random walls",
    "point-maze": "LeWM, point maze",
    "push-t": "principal components, Push-T",
    "doom-rooms": "MLP on LeWM, doom rooms",
    "world-models": "World Models",
}
# Who else plays the tasks of `jepa plan` (see planning/baselines.py): in a sentence, and in a table.
AGENTS = {
    "random": "random actions",
    "inverse_dynamics": "inverse dynamics, without planning",
    "replay": "action replay",
    "expert": "expert (oracle) policy",
    "simulator": "the same planner on the true simulator",
}
SHORT = {
    "random": "random",
    "inverse_dynamics": "inverse dynamics",
    "replay": "replay",
    "expert": "scripted expert",
    "simulator": "true simulator",
}
Row = tuple[str, ...]


class RunResults(Result):
    """Everything that was measured of a run; parts that were not run are None or empty.

    Attributes:
        recipe: of `jepa demo`, if that made the run.
        probe: with one name, `floor`, for the mean state and the majority class.
        dropped: by the probes.
        seconds: by stage, and `total`.
    """

    FILE: ClassVar[str] = "results.json"
    VERB: ClassVar[str] = "report"
    run: str
    recipe: str | None = None
    pretrain: PretrainResult | None = None
    probe: Table
    prediction: dict[str, PredictionErrors]
    episodes: dict[str, int]
    dropped: dict[str, Any]
    plan: PlanResult | None = None
    dream: DreamResult | None = None
    seconds: dict[str, float]
    seeds: dict[str, int]
    versions: dict[str, str]

    def state_r2(self, column: str) -> float | None:
        """The headline of the probes."""
        return self.probe.get("state_r2", {}).get(column)

    def few_labels(self) -> dict[int, dict[str, float | None]]:
        """The headline read from few labelled episodes: their number -> scores by column, the fewest first."""
        found = {name: re.fullmatch(r"state_r2\.(\d+)_episodes", name) for name in self.probe}
        rows = {int(match[1]): self.probe[name] for name, match in found.items() if match}
        return dict(sorted(rows.items()))

    @property
    def method(self) -> str:
        """What the run is called in tables."""
        return self.recipe or (self.pretrain.method if self.pretrain else "?")


def collect_results(run: Path, out: Path | None = None) -> RunResults:
    """Everything that was measured of a run.

    Parts are read from `out`, if it holds them, and else from the run folder.

    `timings.json` ({stage: seconds}), where there is one, holds the whole time of each stage and goes before the
    seconds that a verb measured of itself.

    Raises:
        UserError: the folder is not a run, or a file in it is damaged.
    """
    config = read_config(run)
    places = folders(run, out)
    pretrain, probe = PretrainResult.find(places), ProbeResult.find(places)
    plan, dream = PlanResult.find(places), DreamResult.find(places)
    seconds = {
        stage: part.seconds for stage, part in (("pretrain", pretrain), ("probe", probe), ("plan", plan)) if part
    }
    if dream:
        seconds["dream"] = dream.training_seconds + dream.seconds
    seconds |= read_json(places, "timings.json")
    seeds = {
        "pretrain": config.get("seed"),
        "plan": plan and plan.protocol.seed,
        "probe": probe and probe.seed,
        "dream": dream and dream.protocol.seed,
    }
    return RunResults(
        run=run.name,
        recipe=read_json(places, "demo.json").get("method"),
        pretrain=pretrain,
        probe={name: merge_floors(row) for name, row in probe.scores.items()} if probe else {},
        prediction=probe.prediction if probe else {},
        episodes=probe.episodes if probe else {},
        dropped=probe.dropped if probe else {},
        plan=plan,
        dream=dream,
        seconds={"total": round(sum(seconds.values()), 2)} | seconds,
        seeds={stage: seed for stage, seed in seeds.items() if seed is not None},
        versions=_versions(),
    )


def summary_table(results: RunResults) -> list[Row]:
    """The headline numbers as rows (what, result, baselines); the first row is a heading."""
    rows: list[Row] = [("", "result", "baselines")]
    if state := results.probe.get("state_r2"):
        others = [f"{label} {number(state[key])}" for key, label in COLUMNS.items() if key in state]
        rows.append(("world state, R²", number(state.get("pretrained")), " · ".join(others[1:])))
    for episodes, row in results.few_labels().items():
        others = [f"{label} {number(row[key])}" for key, label in COLUMNS.items() if key in row]
        what = f"world state, R², {counted(episodes, 'labeled episode')}"
        rows.append((what, number(row.get("pretrained")), " · ".join(others[1:])))
    for ahead, error in sorted(results.prediction.items(), key=lambda item: int(item[0])):
        baselines = f"nothing moves {number(error.identity)} · shuffled actions {number(error.shuffled)}"
        rows.append((f"latent prediction error, {counted(int(ahead), 'step')}", number(error.model), baselines))
    if plan := results.plan:
        baselines = " · ".join(f"{SHORT[agent]} {percent(share)}" for agent, share in planning_baselines(plan).items())
        result = f"{percent(plan.success)} ({percent(plan.low)} to {percent(plan.high)})"
        rows.append((f"planning success, {plan.tasks} tasks", result, baselines))
    if dream := results.dream:
        baselines = " · ".join(f"{label} {score}" for label, score in dream_baselines(dream).items())
        what = f"{dream.episodes} episodes" if dream.tasks is None else f"{dream.tasks} tasks"
        result = f"{score_text(dream, dream.value)} ({score_text(dream, dream.low)} to {score_text(dream, dream.high)})"
        rows.append((f"learned in dreams, {what}", result, baselines))
    if pretrain := results.pretrain:
        speed = f"{number(pretrain.clips_per_second, 0)} clips a second, {pretrain.steps} steps"
        rows.append(("effective rank of the latents", number(pretrain.effective_rank, 1), speed))
    stages = [f"{stage} {s:.0f}" for stage, s in results.seconds.items() if stage != "total"]
    return [*rows, ("seconds", f"{results.seconds['total']:.0f}", " · ".join(stages))]


def seeds_table(results: Sequence[RunResults]) -> list[Row]:
    """Several runs, one row per method: mean ± standard deviation (lowest to highest). The first row is a heading.

    `gain` is pretrained minus random init in the same run; `seeds won` counts the runs in which it is positive. `kNN`
    is the balanced accuracy of nearest neighbors, averaged over the labels.
    """

    def gain(result: RunResults) -> float | None:
        before, after = result.state_r2("random_init"), result.state_r2("pretrained")
        return None if before is None or after is None else after - before

    def neighbors(result: RunResults, column: str) -> float | None:
        scores = [row.get(column) for name, row in result.probe.items() if name.endswith(".knn.balanced")]
        known = [score for score in scores if score is not None]
        return statistics.fmean(known) if known else None

    measures: dict[str, tuple[Callable[[RunResults], float | None], int]] = {
        "state R²": (lambda r: r.state_r2("pretrained"), 2),
        "random init": (lambda r: r.state_r2("random_init"), 2),
        "gain": (gain, 3),
        "pixels": (lambda r: r.state_r2("pixels"), 2),
        "supervised": (lambda r: r.state_r2("supervised"), 2),
        "kNN": (lambda r: neighbors(r, "pretrained"), 2),
        "kNN, random init": (lambda r: neighbors(r, "random_init"), 2),
        "kNN, pixels": (lambda r: neighbors(r, "pixels"), 2),
        "planning success": (lambda r: r.plan and r.plan.success, 2),
        "effective rank": (lambda r: r.pretrain and r.pretrain.effective_rank, 1),
        "seconds": (lambda r: r.seconds["total"], 0),
    }
    rows: list[Row] = [("method", "seeds", *measures, "seeds won")]
    for method in dict.fromkeys(result.method for result in results):
        runs = [result for result in results if result.method == method]
        gains = [g for g in map(gain, runs) if g is not None]
        cells = [_spread([value for r in runs if (value := read(r)) is not None], d) for read, d in measures.values()]
        won = f"{sum(g > 0 for g in gains)} of {len(gains)}" if gains else "–"
        rows.append((METHODS.get(method, method), str(len(runs)), *cells, won))
    return rows


def read_config(run: Path) -> dict[str, Any]:
    """`config.yaml` of a run. Raises UserError if there is none: then the folder is not a run."""
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"{run}: no config.yaml here, so this is not a run folder. `jepa pretrain CONFIG` makes one.")
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected keys and values, found {type(config).__name__}")
    return config


def read_json(places: Sequence[Path], name: str) -> dict[str, Any]:
    """The file of the first folder that has one; empty if none has. Raises UserError if it is damaged."""
    for folder in places:
        path = folder / name
        if not path.is_file():
            continue
        try:
            content = parse_json(path.read_text())
        except ValueError as error:
            raise UserError(f"{path}: not readable as JSON ({error}); run the command that writes it again") from None
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected an object, found {type(content).__name__}")
        return content
    return {}


def merge_floors(row: Mapping[str, float | None]) -> dict[str, float | None]:
    """One name, `floor`, for what knows nothing: the mean state, the majority class."""
    return {"floor" if column in ("mean", "majority") else column: value for column, value in row.items()}


def planning_baselines(plan: PlanResult) -> dict[str, float]:
    """Share of tasks that others solved, by agent, in the order of `AGENTS`."""
    return {agent: plan.baselines[agent].success for agent in AGENTS if agent in plan.baselines}


def score_text(dream: DreamResult, value: float | None) -> str:
    """A score as text: a share of tasks, or a return."""
    return number(value, 1) if dream.tasks is None else percent(value)


def dream_baselines(dream: DreamResult) -> dict[str, str]:
    """Scores of others in the same tasks as text, by their short names: the planner first, if it had the same."""
    planner = {"planning": percent(dream.planner.success)} if dream.planner else {}
    baselines = dream.baselines
    return planner | {SHORT[a]: score_text(dream, baselines[a].value) for a in SHORT if a in baselines}


def counted(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)


def number(value: float | int | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def percent(share: float | int | None) -> str:
    """In whole ones, but some are never shown as none, nor nearly all as all."""
    if share is None:
        return "–"
    whole = f"{100 * share:.0f}"
    return f"{100 * share:.1f} %" if whole in ("0", "100") and share not in (0, 1) else f"{whole} %"


def aligned(rows: Sequence[Sequence[str]], others: Callable[[str, int], str] = str.ljust) -> list[str]:
    """Lines of a table: the first column to the left, the `others` to the left or, with `str.rjust`, to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [others(cell, width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return lines


def mean_and_std(values: Sequence[float], digits: int) -> str:
    """`0.83 ± 0.02`; without a deviation for a single value."""
    if len(values) < 2:
        return number(values[0] if values else None, digits)
    return f"{number(statistics.fmean(values), digits)} ± {number(statistics.stdev(values), digits)}"


def _spread(values: Sequence[float], digits: int) -> str:
    shown = mean_and_std(values, digits)
    return shown if len(values) < 2 else f"{shown} ({number(min(values), digits)}…{number(max(values), digits)})"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a checkout that is used without being installed
            versions[name] = "not installed"
    return versions
