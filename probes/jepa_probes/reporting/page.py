"""RUN/report.html: one self-contained page of what a run learned. It loads nothing and runs no script.

Read from the run folder, all but the first optional: config.yaml, pretrain.json, logs/metrics.csv, probe.json,
plan.json, dream.json, timings.json, and figures/ (data.png, pca.gif, rollout.gif, plan_0.gif …). What is not there is
left out, with a line that says which command makes it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jepa_probes.imagination.result import DreamResult, Score
from jepa_probes.output import folders
from jepa_probes.probing.result import PredictionErrors
from jepa_probes.reporting.curves import curves, learning, read_metrics
from jepa_probes.reporting.html import data_uri, embed_chart, render
from jepa_probes.reporting.report_text import sentences
from jepa_probes.reporting.results import (
    AGENTS,
    COLUMNS,
    METHODS,
    SHORT,
    RunResults,
    collect_results,
    counted,
    dream_baselines,
    number,
    percent,
    planning_baselines,
    read_config,
    score_text,
)

TEMPLATE = Path(__file__).with_name("report.html.j2")
KINDS = {".png": "image/png", ".gif": "image/gif"}
LARGEST_FIGURE = 4 * 2**20  # bytes; so that a page opens on a phone
MAX_PLANS = 8
CONTROLLERS = {"actor_critic": "An actor-critic", "evolution": "A linear controller, found by CMA-ES,"}
HIGHER, LOWER = max, min


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write `report.html` into the run folder, or into `out`, which is also read first (see `collect_results`).

    Raises:
        UserError: it is no run, or a file in it is damaged.
    """
    return render(TEMPLATE, context(run, out), (out or run) / "report.html")


def context(run: Path, out: Path | None = None) -> dict[str, Any]:
    """What the template shows."""
    places = folders(run, out)
    results, config = collect_results(run, out), read_config(run)
    figures, oversized = _figures([folder / "figures" for folder in places])
    metrics = run / "logs" / "metrics.csv"
    charts = curves(read_metrics(metrics)) if metrics.is_file() else []
    method = results.pretrain.method if results.pretrain else config.get("method", {}).get("kind", "")
    return {
        "agents": AGENTS,
        "name": run.name or str(run.resolve().name),
        "folder": run.as_posix(),
        "method": METHODS.get(method, method),
        "results": results,
        "pretrain": results.pretrain,
        "plan": results.plan,
        "dream": _dream(results.dream),
        "sentences": sentences(results, config),
        "tiles": _tiles(results),
        "config": (run / "config.yaml").read_text(),
        "charts": [embed_chart(chart) for chart in charts],
        "figures": {name: uri for name, uri in figures.items() if not name.startswith("plan_")},
        "plans": [uri for name, uri in sorted(figures.items()) if name.startswith("plan_")][:MAX_PLANS],
        "oversized": oversized,
        "bars": _bars(results.probe.get("state_r2", {})),
        "probes": _probe_tables(results.probe),
        "episodes": results.episodes,
        "left_out": _left_out(results.dropped),
        "prediction": _prediction_table(results.prediction),
        "seconds": {stage: s for stage, s in results.seconds.items() if stage != "total"},
    }


def _tiles(results: RunResults) -> list[dict[str, str]]:
    tiles = _state_tile(results)
    ahead = max(results.prediction, key=int, default="")
    error = results.prediction.get(ahead)
    if error and error.model and error.identity is not None:
        ratio = error.identity / error.model
        value = f"{ratio:.1f}× lower" if ratio >= 1 else f"{1 / ratio:.1f}× higher"
        note = f"{ahead} latent steps ahead, than assuming that nothing moves"
        tiles.append({"label": "prediction error", "value": value, "note": note})
    if plan := results.plan:
        note = " · ".join(f"{SHORT[agent]} {percent(share)}" for agent, share in planning_baselines(plan).items())
        tiles.append({"label": "goals reached", "value": percent(plan.success), "note": note})
    if (dream := results.dream) and dream.value is not None:
        others = [f"{label} {score}" for label, score in dream_baselines(dream).items()]
        note = " · ".join(["mean return" if dream.tasks is None else "goals reached", *others])
        tiles.append({"label": "learned in dreams", "value": score_text(dream, dream.value), "note": note})
    if results.seconds["total"]:
        stages = " · ".join(f"{stage} {s:.0f}" for stage, s in results.seconds.items() if stage != "total")
        tiles.append({"label": "seconds in all", "value": f"{results.seconds['total']:.0f}", "note": stages})
    return tiles


def _state_tile(results: RunResults) -> list[dict[str, str]]:
    """What is read off the latents; from the fewest labels, where that was measured."""
    row = results.probe.get("state_r2", {})
    if row.get("pretrained") is None:
        return []
    label = "world state, R²"
    notes = []
    for episodes, few in list(results.few_labels().items())[:1]:
        label += f", {counted(episodes, 'labeled episode')}"
        notes = [f"of all episodes {number(row['pretrained'], 2)}, pixels {number(row.get('pixels'), 2)}"]
        row = few
    beside = [f"{COLUMNS[key]} {number(row[key], 2)}" for key in ("pixels", "random_init") if row.get(key) is not None]
    return [{"label": label, "value": number(row["pretrained"], 2), "note": " · ".join(beside + notes)}]


def _bars(row: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """One bar a column of the main score; R² below 0 has no length."""
    return [
        {"label": label, "value": number(value, 2), "width": round(100 * min(1.0, max(0.0, value)), 1), "key": key}
        for key, label in COLUMNS.items()
        if (value := row.get(key)) is not None
    ]


def _probe_tables(probe: Mapping[str, Mapping[str, float | None]]) -> list[dict[str, Any]]:
    """World state, classification, and all else; each with the columns that it has."""
    state = {"state_r2": "world state, mean"}
    classes, other = {}, {}
    for name in probe:
        if name == "state_r2":
            continue
        if match := re.fullmatch(r"state_r2\.(\d+)_episodes", name):
            state[name] = f"world state, mean, from {counted(int(match[1]), 'labeled episode')}"
        elif match := re.fullmatch(r"(?:state\.)?(\w+)\.(position|velocity)(\.occluded)?", name):
            state[name] = f"{match[1]} {match[2]}" + (", while hidden" if match[3] else "")
        elif match := re.fullmatch(r"class\.(.+)\.(\w+)\.accuracy|accuracy\.(.+)\.(\w+)", name):
            kind = match[2] or match[4]
            classes[name] = f"{match[1] or match[3]}, " + {"knn": "nearest neighbors"}.get(kind, f"{kind} probe")
        else:
            other[name] = name.removeprefix("state.").removeprefix("class.").replace(".", " ").replace("_", " ")
    shown = (
        ("World state: R² of a ridge regression from one latent step", state, False),
        ("Properties of a clip: accuracy of classifiers", classes, False),
        ("All other scores", other, True),
    )
    return [
        table | {"title": title, "folded": folded}
        for title, labels, folded in shown
        if (table := _table({labels[name]: probe[name] for name in labels if name in probe}, COLUMNS, HIGHER))["rows"]
    ]


def _prediction_table(scores: Mapping[str, PredictionErrors]) -> dict[str, Any]:
    columns = {"model": "model", "identity": "nothing moves", "shuffled": "other actions"}
    rows = {f"{counted(int(h), 'step')} ahead": dict(scores[h]) for h in sorted(scores, key=int)}
    return _table(rows, columns, LOWER)


def _dream(dream: DreamResult | None) -> dict[str, Any]:
    """Scores with their intervals, returns in dreams and in the world, and how the controller learned."""
    if dream is None or dream.value is None:
        return {"by_return": False}
    rows: dict[str, Score] = {"learned in dreams": dream}
    if dream.planner:
        rows["planning in latents"] = Score(**dict(dream.planner))
    rows |= {AGENTS[agent]: dream.baselines[agent] for agent in AGENTS if agent in dream.baselines}
    scores = [
        {"label": label, "value": score_text(dream, score.value), "low": score_text(dream, score.low)}
        | {"high": score_text(dream, score.high), "length": number(score.length, 0)}
        for label, score in rows.items()
    ]
    controller = dream.settings["controller"]["kind"]
    unit = {"actor_critic": "update", "evolution": "generation"}.get(controller, "step")
    history = [(done, value) for done, value in dream.history if value is not None]
    return {
        "by_return": dream.tasks is None,
        "scores": scores,
        "returns": _returns(dream),
        "sampled": bool(dream.temperatures),
        "chart": embed_chart(learning(history, unit)) if history else None,
        "controller": CONTROLLERS.get(controller, "A controller"),
        "heads": _heads(dream.heads),
        "protocol": dream.protocol,
        "count": dream.count,
        "seconds": dream.training_cpu_seconds,
    }


def _heads(heads: Mapping[str, float | None]) -> str:
    """What is known of a world's own rewards and ends."""
    parts = []
    if heads.get("reward_r2") is not None:
        parts.append(f"Rewards are known with R² {number(heads['reward_r2'], 2)}.")
    if (at_ends := heads.get("goes_on_at_ends")) is not None:
        elsewhere = number(heads.get("goes_on_elsewhere"), 2)
        parts.append(f"The chance to go on is {number(at_ends, 2)} at ends and {elsewhere} elsewhere.")
    if not parts:
        return ""
    return " ".join(["", *parts, "Both on held-out recordings." if len(parts) > 1 else "On held-out recordings."])


def _returns(dream: DreamResult) -> list[dict[str, str]]:
    """One row a temperature and number of steps."""
    at = dream.temperatures or {"": dream.returns}
    return [
        {"temperature": temperature, "steps": str(row.steps), "dream": number(row.dream, 2)}
        | {"world": number(row.world, 2), "gap": number(row.gap, 2), "correlation": number(row.correlation, 2)}
        for temperature, returns in sorted(at.items(), key=lambda item: float(item[0] or 0))
        for row in returns.values()
    ]


def _table(
    rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str], best: Callable[..., float]
) -> dict[str, Any]:
    """Cells as text, the best number of a row marked; rows and columns without any number are left out."""
    used = [key for key in columns if any(row.get(key) is not None for row in rows.values())]
    lines = []
    for label, row in rows.items():
        texts = {key: number(row.get(key)) for key in used}
        values = [row[key] for key in used if row.get(key) is not None]
        if values:
            winner = number(best(values))
            lines.append({"label": label, "cells": [{"text": t, "best": t == winner} for t in texts.values()]})
    return {"columns": [columns[key] for key in used], "rows": lines}


def _left_out(dropped: Mapping[str, Any]) -> list[str]:
    """Which samples no probe could use, and why."""
    labels = {name: n for name, n in (dropped.get("label_dropped") or {}).items() if n}
    states = {name: n for name, n in (dropped.get("state_dropped") or {}).items() if n}
    lines = [f"{name}: {n} clips in which the label does not apply" for name, n in labels.items()]
    return lines + [f"{name}: {n} steps in which it does not exist or is infinite" for name, n in states.items()]


def _figures(folders: Sequence[Path]) -> tuple[dict[str, str], list[str]]:
    """Images by file name as data URIs, and the names of those that are too large. Plans go with the plan.json."""
    planned = next((folder for folder in folders if (folder.parent / "plan.json").is_file()), folders[-1])
    paths: dict[str, Path] = {}
    for folder in reversed(folders):
        for path in sorted(folder.glob("*")):
            if not path.name.startswith("plan_") or folder == planned:
                paths[path.name] = path
    figures, oversized = {}, []
    for _, path in sorted(paths.items()):
        if path.suffix in KINDS and path.is_file():
            if path.stat().st_size > LARGEST_FIGURE:
                oversized.append(path.name)
            else:
                figures[path.name] = data_uri(path.read_bytes(), KINDS[path.suffix])
    return figures, oversized
