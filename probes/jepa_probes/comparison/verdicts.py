"""Do the baselines lose that must lose? A sentence for each says what they lose, and what not, to which models."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jepa_probes.comparison.result import CellResult, by_model
from jepa_probes.reporting.results import number, percent

Read = Callable[[CellResult], float | None]


@dataclass(frozen=True)
class Contest:
    """A number that a model must be better in than a baseline."""

    what: str
    read: Read
    sign: int  # 1: more is better
    text: Callable[[float], str] = number


def verdicts(cells: Sequence[CellResult]) -> list[str]:
    """One sentence a baseline, over the means of all seeds."""
    models = by_model([cell for cell in cells if cell.baseline is None])
    sentences = []
    for name, rows in by_model([cell for cell in cells if cell.baseline is not None]).items():
        won, kept = [], []
        for contest in _contests(name, rows):
            worst = _mean(rows, contest.read)
            scores = {model: _mean(own, contest.read) for model, own in models.items()}
            known = {model: score for model, score in scores.items() if score is not None}
            if worst is None or not known:
                continue
            ahead = [m for m, score in known.items() if contest.sign * (score - worst) <= 0]
            if ahead:
                others = ", ".join(f"{model} {contest.text(known[model])}" for model in ahead)
                kept.append(f"{contest.what} ({contest.text(worst)}; {others})")
            else:
                won.append(contest.what)
        label = name.replace("_", " ")
        if not kept:
            sentences.append(f"{label} loses to every model: {', '.join(won)}.")
        else:
            lost = f" It loses to every model in {', '.join(won)}." if won else ""
            sentences.append(f"{label} does NOT lose to every model in {', '.join(kept)}.{lost}")
    return sentences


def _contests(baseline: str, rows: Sequence[CellResult]) -> list[Contest]:
    """What a baseline must lose in. Errors in latents of another encoder are not comparable, so those are left out."""
    contests = [
        Contest("planning success", lambda c: c.plan and c.plan.success, 1, percent),
        Contest("rank correlation of costs", lambda c: c.cost and c.cost.correlation, 1),
    ]
    if baseline == "random_encoder":
        return [Contest("state R²", lambda c: c.state_r2.get("all"), 1), *contests]
    for error in rows[0].forecast.errors:
        contests.append(Contest(f"latent error after {error.horizon}", _over_identity(error.horizon), -1))
    return contests


def _over_identity(horizon: int) -> Read:
    return lambda cell: cell.error(horizon)


def _mean(cells: Sequence[CellResult], read: Read) -> float | None:
    known = [value for cell in cells if (value := read(cell)) is not None]
    return statistics.fmean(known) if known else None
