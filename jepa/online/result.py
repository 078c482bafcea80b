"""RUN/online.json: what `jepa online` learned."""

from typing import ClassVar

from jepa.config.result import Result
from jepa.online.evaluate import Evaluation


class OnlineResult(Result):
    """Returns of held-out episodes over environment steps.

    Attributes:
        evaluations: of the controller without exploration, the last one in the end.
        baselines: of others in the same episodes: `random` actions, and the `expert` of worlds that have one.
        decisions: of the controller while it collected.
        seconds, cpu_seconds: of collecting and learning.
    """

    FILE: ClassVar[str] = "online.json"
    VERB: ClassVar[str] = "online"
    evaluations: list[Evaluation]
    baselines: dict[str, Evaluation]
    steps: int
    episodes: int
    decisions: int
    updates: int
    parameters: int
    seconds: float
    cpu_seconds: float


def table(result: OnlineResult) -> list[str]:
    """Who earns what, as lines."""
    rows = [("learned online", result.evaluations[-1]), *result.baselines.items()]
    width = max(len(label) for label, _ in rows)
    lines = [f"{'':{width}}    return      95 % interval    episodes"]
    for label, score in rows:
        interval = f"{score.low:9.1f} … {score.high:.1f}"
        lines.append(f"{label:{width}}  {score.mean_return:8.1f}  {interval:19}{score.episodes:8d}")
    spent = f"{result.steps} steps, {result.episodes} episodes, {result.updates} updates"
    return [*lines, f"{spent} in {result.cpu_seconds:.0f} s of CPU"]
