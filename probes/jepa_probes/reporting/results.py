"""The numbers of a run in one place: what the verbs wrote, as `results.json`, as rows to print, and over several seeds.

RUN/config.yaml  pretrain.json  probe.json  plan.json  dream.json  timings.json   ->   collect_results(RUN)

recipe      of `jepa demo`, if that made the run
pretrain    method, steps, clips_per_second, effective_rank, …
probe       row of the probe table -> column -> score, with at least state_r2.{pretrained, random_init, pixels, …}
prediction  latent steps ahead -> {model, identity, shuffled}
plan        success, low, high, tasks, …, and `baselines`: agent -> the same of others that played these tasks
dream       what learned in dreams: success, low, high, tasks (or return, low, high, episodes), `baselines`, `planner`,
            `returns` in the dream and in the world (at each of the `temperatures`), `history`
seconds     by stage, and `total`         seeds, versions
"""

import importlib.metadata
import json
import math
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from jepa.config import UserError

STAGES = ("pretrain", "probe", "plan")
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
    "lewm-30min": "LeWM, 30 min",
    "vjepa": "V-JEPA",
    "vjepa21": "V-JEPA 2.1",
    "levjepa": "LeVJEPA",
    "salt": "SALT",
    "vpixel": "V-Pixel",
    "two-rooms": "LeWM, two rooms",
    "two-rooms-random-wall": "LeWM, random walls",
    "point-maze": "LeWM, point maze",
    "push-t": "LeWM, Push-T",
}
# Who else plays the tasks of `jepa plan` (see planning/evaluate.py): in a sentence, and in a table.
AGENTS = {
    "random": "random actions",
    "inverse_dynamics": "inverse dynamics, without planning",
    "replay": "the recorded actions once more",
    "expert": "a script that is told the true state",
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


def collect_results(run: Path, out: Path | None = None) -> dict[str, Any]:
    """Everything that was measured of a run; parts that were not run are left out. Free of NaN.

    Parts are read from `out`, if it holds them, and else from the run folder.

    `timings.json` ({stage: seconds}), where there is one, holds the whole time of each stage and goes before the
    seconds that a verb measured of itself.

    Raises:
        UserError: the folder is not a run, or a file in it is damaged.
    """
    config = read_config(run)
    places = (run,) if out is None else (out, run)
    parts = {stage: find_part(places, stage) for stage in STAGES}
    pretrain, probe, plan = (parts[stage] for stage in STAGES)
    results: dict[str, Any] = {"run": run.name}
    if recipe := find_part(places, "demo").get("method"):
        results["recipe"] = recipe
    if pretrain:
        results["pretrain"] = {"method": config.get("method", {}).get("kind")} | pretrain
    if probe:
        results["probe"] = {name: merge_floors(row) for name, row in probe.get("scores", {}).items()}
        results["prediction"] = probe.get("prediction", {})
        results["episodes"] = probe.get("episodes", {})
    if plan:
        results["plan"] = plan
    if dream := find_part(places, "dream"):
        results["dream"] = dream
        parts["dream"] = {"seconds": dream.get("training_seconds", 0) + dream.get("seconds", 0)}
    seconds = {stage: part["seconds"] for stage, part in parts.items() if part.get("seconds") is not None}
    seconds |= find_part(places, "timings")
    total = seconds.pop("total", None)
    results["seconds"] = seconds | {"total": round(sum(seconds.values()), 2) if total is None else total}
    seeds = {"pretrain": config.get("seed"), "plan": plan.get("protocol", {}).get("seed"), "probe": probe.get("seed")}
    seeds["dream"] = dream.get("protocol", {}).get("seed")
    results["seeds"] = {stage: seed for stage, seed in seeds.items() if seed is not None}
    results["versions"] = _versions()
    return without_nan(results)


def write_results(run: Path, out: Path | None = None) -> Path:
    """`results.json` of a run, in its folder or in `out`."""
    path = (out or run) / "results.json"
    path.write_text(json.dumps(collect_results(run, out), indent=2, allow_nan=False) + "\n")
    return path


def summary_table(results: Mapping[str, Any]) -> list[Row]:
    """The headline numbers as rows (what, result, beside it); the first row is a heading."""
    rows: list[Row] = [("", "result", "beside it")]
    state = results.get("probe", {}).get("state_r2")
    if state:
        others = [f"{label} {number(state[key])}" for key, label in COLUMNS.items() if key in state]
        rows.append(("world state, R²", number(state.get("pretrained")), " · ".join(others[1:])))
    for ahead, error in sorted(results.get("prediction", {}).items(), key=lambda item: int(item[0])):
        steps = "1 step" if ahead == "1" else f"{ahead} steps"
        baselines = f"nothing moves {number(error.get('identity'))} · shuffled actions {number(error.get('shuffled'))}"
        rows.append((f"latent prediction error, {steps}", number(error.get("model")), baselines))
    plan = results.get("plan")
    if plan:
        baselines = " · ".join(f"{SHORT[agent]} {percent(share)}" for agent, share in planning_baselines(plan).items())
        found = f"{percent(plan.get('success'))} ({percent(plan.get('low'))} to {percent(plan.get('high'))})"
        rows.append((f"planning success, {plan.get('tasks')} tasks", found, baselines))
    dream = results.get("dream")
    if dream:
        baselines = " · ".join(f"{label} {told}" for label, told in dream_baselines(dream).items())
        what = f"{dream['tasks']} tasks" if "success" in dream else f"{dream.get('episodes')} episodes"
        found, low, high = (told_of(dream, key) for key in (headline(dream), "low", "high"))
        rows.append((f"learned in dreams, {what}", f"{found} ({low} to {high})", baselines))
    pretrain = results.get("pretrain")
    if pretrain:
        speed = f"{number(pretrain.get('clips_per_second'), 0)} clips a second, {pretrain.get('steps')} steps"
        rows.append(("effective rank of the latents", number(pretrain.get("effective_rank"), 1), speed))
    stages = [f"{stage} {s:.0f}" for stage, s in results["seconds"].items() if stage != "total"]
    return [*rows, ("seconds", f"{results['seconds']['total']:.0f}", " · ".join(stages))]


def seeds_table(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Several runs, one row per method: mean ± standard deviation (lowest to highest). The first row is a heading.

    `gain` is pretrained minus random init in the same run; `seeds won` counts the runs in which it is positive. `kNN`
    is the balanced accuracy of nearest neighbors, averaged over the labels.
    """

    def state(result: Mapping[str, Any], column: str) -> float | None:
        return result.get("probe", {}).get("state_r2", {}).get(column)

    def gain(result: Mapping[str, Any]) -> float | None:
        before, after = state(result, "random_init"), state(result, "pretrained")
        return None if before is None or after is None else after - before

    def neighbors(result: Mapping[str, Any], column: str) -> float | None:
        rows = result.get("probe", {})
        found = [row.get(column) for name, row in rows.items() if name.endswith(".knn.balanced")]
        known = [score for score in found if score is not None]
        return statistics.fmean(known) if known else None

    measures: dict[str, tuple[Callable[[Mapping[str, Any]], float | None], int]] = {
        "state R²": (lambda r: state(r, "pretrained"), 2),
        "random init": (lambda r: state(r, "random_init"), 2),
        "gain": (gain, 3),
        "pixels": (lambda r: state(r, "pixels"), 2),
        "supervised": (lambda r: state(r, "supervised"), 2),
        "kNN": (lambda r: neighbors(r, "pretrained"), 2),
        "kNN, random init": (lambda r: neighbors(r, "random_init"), 2),
        "kNN, pixels": (lambda r: neighbors(r, "pixels"), 2),
        "planning success": (lambda r: r.get("plan", {}).get("success"), 2),
        "effective rank": (lambda r: r.get("pretrain", {}).get("effective_rank"), 1),
        "seconds": (lambda r: r.get("seconds", {}).get("total"), 0),
    }
    rows: list[Row] = [("method", "seeds", *measures, "seeds won")]
    for method in dict.fromkeys(_method(result) for result in results):
        runs = [result for result in results if _method(result) == method]
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


def read_part(run: Path, name: str) -> dict[str, Any]:
    """`NAME.json` of a run; empty if it was not written. Raises UserError if it is damaged."""
    path = run / f"{name}.json"
    if not path.is_file():
        return {}
    try:
        part = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error}); run the command that writes it again") from None
    if not isinstance(part, dict):
        raise UserError(f"{path}: expected an object, found {type(part).__name__}")
    return without_nan(part)


def find_part(places: Sequence[Path], name: str) -> dict[str, Any]:
    """`NAME.json` of the first of the folders that has one; empty if none has. Raises UserError if it is damaged."""
    return next((part for place in places if (part := read_part(place, name))), {})


def merge_floors(row: Mapping[str, Any]) -> dict[str, Any]:
    """One name, `floor`, for what knows nothing: the mean state, the majority class."""
    return {"floor" if column in ("mean", "majority") else column: value for column, value in row.items()}


def without_nan(value: Any) -> Any:
    """The same JSON value with None for every number that is not finite."""
    match value:
        case dict():
            return {key: without_nan(item) for key, item in value.items()}
        case list() | tuple():
            return [without_nan(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value


def planning_baselines(plan: Mapping[str, Any]) -> dict[str, float]:
    """Share of tasks that others solved, by agent, in the order of `AGENTS`."""
    scores = plan.get("baselines", {})
    return {agent: scores[agent]["success"] for agent in AGENTS if agent in scores}


def headline(dream: Mapping[str, Any]) -> str:
    """What a controller that learned in dreams is scored by: tasks solved, or what it earned."""
    return "return" if "return" in dream else "success"


def told_of(dream: Mapping[str, Any], key: str) -> str:
    """A headline, or an end of its interval, as text."""
    return number(dream.get(key), 1) if headline(dream) == "return" else percent(dream.get(key))


def dream_baselines(dream: Mapping[str, Any]) -> dict[str, str]:
    """Scores of others in the same tasks as text, by their short names: the planner first, if it had the same."""
    others = {"planning": dream["planner"]} if dream.get("planner") else {}
    baselines = dream.get("baselines", {})
    others |= {SHORT[agent]: baselines[agent] for agent in SHORT if agent in baselines}
    return {label: told_of(score, headline(dream)) for label, score in others.items()}


def number(value: float | int | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def percent(share: float | int | None) -> str:
    """In whole ones, but some are never shown as none, nor nearly all as all."""
    if share is None:
        return "–"
    whole = f"{100 * share:.0f}"
    return f"{100 * share:.1f} %" if whole in ("0", "100") and share not in (0, 1) else f"{whole} %"


def _method(result: Mapping[str, Any]) -> str:
    return result.get("recipe") or result.get("pretrain", {}).get("method") or "?"


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    if len(values) == 1:
        return number(values[0], digits)
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    low, high = number(min(values), digits), number(max(values), digits)
    return f"{number(mean, digits)} ± {number(deviation, digits)} ({low}…{high})"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a checkout that is used without being installed
            from jepa import __version__

            found[name] = __version__ if name == "openjepa" else "?"
    return found
