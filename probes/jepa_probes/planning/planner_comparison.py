"""Which planner, and how much search? Success against CPU time, of many planners on the same tasks.

RUN/planners.json           of each planner: success with its interval, and CPU time a plan, beside a baseline
RUN/figures/planners.svg    success against CPU time

All planners are timed in turn in this process, A B C A B C …, on one thread: the same first plans, once for one episode
alone and once for some episodes at once. The median counts.
"""

import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from jepa.agents.controller import Controller
from jepa.agents.observations import proprioception
from jepa.agents.policy import PlanSettings, Policy
from jepa.agents.proposals import RecordedSegments
from jepa.config import Component, UserError
from jepa.config.result import Result
from jepa.world_model import LatentWorldModel
from jepa_data.worlds.base import GoalBatch
from jepa_probes.planning.config import PlannersConfig
from jepa_probes.planning.evaluate import act_in
from jepa_probes.planning.paired_test import mcnemar
from jepa_probes.planning.result import Success
from jepa_probes.planning.settings import make_planner
from jepa_probes.planning.tasks import Protocol, Tasks
from jepa_probes.reporting.results import aligned

logger = logging.getLogger(__name__)


class PlannerScore(Success):
    """What a planner solves, and what a plan costs.

    Attributes:
        planner: its settings.
        solved: which tasks.
        cpu_ms: CPU milliseconds for each of `episodes` plans that are made at once, encoding included;
            `cpu_ms_alone` for a single one.
        cheaper, cheaper_alone: CPU time of the baseline, divided by that.
        model_calls: imagined steps; `differentiated_calls` of them with gradients.
        p_value: McNemar's exact test against the baseline.
    """

    planner: dict[str, Any]
    label: str
    solved: list[bool]
    cpu_ms: float
    cpu_ms_alone: float
    cheaper: float
    cheaper_alone: float
    model_calls: int
    differentiated_calls: int
    p_value: float


class PlannerComparison(Result):
    """Planners on the same tasks; `scores[0]` is the baseline."""

    FILE: ClassVar[str] = "planners.json"
    VERB: ClassVar[str] = "plan"
    scores: list[PlannerScore]
    protocol: Protocol
    episodes: int
    rounds: int
    seconds: float

    def cheapest(self) -> PlannerScore | None:
        """Of those that solve as much as the baseline or more, the one that takes least for one episode alone."""
        baseline, *others = self.scores
        as_good = [score for score in others if score.success >= baseline.success]
        return min(as_good, key=lambda score: score.cpu_ms_alone, default=None)


@dataclass
class _Entry:
    """A planner, what it solved, and its imagined steps a plan: all, and those with gradients."""

    config: Component
    settings: PlanSettings
    solved: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    calls: tuple[int, int] = (0, 0)


def compare_planners(
    model: LatentWorldModel,
    tasks: Tasks,
    settings: PlanSettings,
    config: PlannersConfig,
    guide: Controller | None = None,
    segments: RecordedSegments | None = None,
) -> PlannerComparison:
    """Let each planner play the tasks, then time all of them.

    Args:
        settings: how each of them plans, apart from the planner.
        guide, segments: what plans start from, see `Policy`.
    """
    began = time.perf_counter()
    fps = tasks.start(1).fps

    def make_policy(entry: _Entry, count: int | None = None) -> Policy:
        return Policy(model, tasks.goal_images[:count], entry.settings, tasks.protocol.seed, fps, guide, segments)

    parts = (config.baseline, *config.planners)
    entries = [_Entry(part, replace(settings, planner=make_planner(part))) for part in parts]
    for entry in entries:
        logger.info(f"planning with {label_of(entry.config)}")
        policy = make_policy(entry)
        entry.solved = tasks.solved_by(partial(act_in, policy))
        steps = settings.horizon / policy.plans
        entry.calls = (round(policy.evaluations * steps), round(policy.differentiated * steps))
    episodes = min(config.episodes, tasks.protocol.tasks)
    logger.info("timing")
    alone = _timed([make_policy(entry, 1) for entry in entries], tasks.start(1), config.rounds)
    together = _timed([make_policy(entry, episodes) for entry in entries], tasks.start(episodes), config.rounds)
    scores = []
    for entry, ms, ms_alone in zip(entries, together, alone, strict=True):
        score = PlannerScore(
            **dict(Success.of(entry.solved)),
            planner=entry.config.model_dump(mode="json"),
            label=label_of(entry.config),
            solved=entry.solved.tolist(),
            cpu_ms=ms,
            cpu_ms_alone=ms_alone,
            cheaper=together[0] / ms,
            cheaper_alone=alone[0] / ms_alone,
            model_calls=entry.calls[0],
            differentiated_calls=entry.calls[1],
            p_value=_p_value(entry.solved.tolist(), entries[0].solved.tolist()),
        )
        scores.append(score)
    return PlannerComparison(
        scores=scores,
        protocol=tasks.protocol,
        episodes=episodes,
        rounds=config.rounds,
        seconds=time.perf_counter() - began,
    )


def pooled(comparisons: Sequence[PlannerComparison]) -> list[PlannerScore]:
    """Scores of the same planners in several runs as one: all their tasks, and the median of their times.

    Raises:
        UserError: they do not compare the same planners.
    """
    first = [score.planner for score in comparisons[0].scores]
    if any([score.planner for score in other.scores] != first for other in comparisons):
        raise UserError("the comparisons are of different planners; run them with the same file of --planners")
    scores = []
    for same in zip(*(comparison.scores for comparison in comparisons), strict=True):
        solved = [task for score in same for task in score.solved]
        base = [task for comparison in comparisons for task in comparison.scores[0].solved]
        times = {
            name: statistics.median(getattr(score, name) for score in same)
            for name in ("cpu_ms", "cpu_ms_alone", "cheaper", "cheaper_alone")
        }
        changes = dict(Success.of(np.array(solved))) | times | {"solved": solved, "p_value": _p_value(solved, base)}
        scores.append(same[0].model_copy(update=changes))
    return scores


def _p_value(solved: Sequence[bool], base: Sequence[bool]) -> float:
    pairs = list(zip(solved, base, strict=True))
    return mcnemar(pairs.count((True, False)), pairs.count((False, True)))


def label_of(config: Component) -> str:
    """A planner in a few words: its kind and what was set of it."""
    parts = []
    for name in type(config).model_fields:
        if name in config.model_fields_set - {"kind"}:
            value = getattr(config, name)
            parts.append(f"{name} ({label_of(value)})" if isinstance(value, Component) else f"{name} {value}")
    return " ".join((config.kind, ", ".join(parts))).strip()


def table(comparison: PlannerComparison) -> list[str]:
    """The comparison as lines, the baseline first, and what is cheapest."""
    head = ("planner", "solved", "95 % interval", "p", "CPU ms alone", f"at once ({comparison.episodes})", "cheaper")
    rows: list[Sequence[str]] = [head]
    for number, score in enumerate(comparison.scores):
        rows.append(
            (
                score.label,
                f"{100 * score.success:.1f} %",
                f"{100 * score.low:.1f} … {100 * score.high:.1f} %",
                f"{score.p_value:.2g}" if number else "",
                f"{score.cpu_ms_alone:.1f}",
                f"{score.cpu_ms:.2f}",
                f"{score.cheaper_alone:.1f} and {score.cheaper:.1f} times" if number else "the baseline",
            )
        )
    lines = aligned(rows)
    best = comparison.cheapest()
    if best is None:
        return [*lines, "none solves as much as the baseline"]
    return [
        *lines,
        f"{best.label} solves no fewer tasks than the baseline, {best.cheaper_alone:.1f} times cheaper alone and "
        f"{best.cheaper:.1f} times with {comparison.episodes} episodes at once",
    ]


def _timed(policies: Sequence[Policy], world: GoalBatch, rounds: int) -> list[float]:
    """CPU milliseconds of each policy for each of the first plans of the world's episodes, made at once."""
    images = world.render()
    known = proprioception(policies[0].model, world)
    seconds: list[list[float]] = [[] for _ in policies]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(rounds + 1):
            for policy, spent in zip(policies, seconds, strict=True):
                policy.reset()
                began = time.process_time()
                policy.act(images, known)
                spent.append((time.process_time() - began) / len(world))
    finally:
        torch.set_num_threads(threads)
    return [1000 * statistics.median(spent[1:]) for spent in seconds]  # the first one warms up
