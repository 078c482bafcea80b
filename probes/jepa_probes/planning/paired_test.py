"""Is one agent better than another on the same tasks? A paired test of two results of `jepa plan`.

                 B solved   B did not
    A solved        n11        n10          only tasks that one alone solved tell them apart: under "no difference"
    A did not       n01        n00          n10 is binomial(n10 + n01, 1/2) (McNemar's exact test, two-sided)

The interval of the difference in success is Agresti's and Min's (2005): Wald's with half a task added to each cell.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np

from jepa.config import UserError
from jepa_probes.planning.result import PlanResult
from jepa_probes.planning.tasks import Z95


@dataclass(frozen=True)
class Comparison:
    """A against B on the same tasks; `difference` of the shares solved, A - B, with its 95 % interval."""

    tasks: int
    both: int
    only_a: int
    only_b: int
    neither: int
    difference: float
    low: float
    high: float
    p_value: float


def compare(a: PlanResult, b: PlanResult) -> Comparison:
    """Compare two results of `jepa plan`.

    Raises:
        UserError: they are not of the same tasks.
    """
    theirs = asdict(b.protocol)
    for key, ours in asdict(a.protocol).items():
        if key != "image_size" and ours != theirs[key]:  # which changes what is seen, not the tasks
            raise UserError(
                f"the two were not given the same tasks: {key} is {ours!r} for A and {theirs[key]!r} for "
                "B. Plan one of them again with --config FOLDER/plan.yaml of the other"
            )
    solved_a = a.solved()
    solved_b = b.solved()
    tasks = len(solved_a)
    neither, only_b, only_a, both = np.bincount(2 * solved_a + solved_b, minlength=4).tolist()
    low, high = _interval(only_a, only_b, tasks)
    return Comparison(
        tasks=tasks,
        both=both,
        only_a=only_a,
        only_b=only_b,
        neither=neither,
        difference=(only_a - only_b) / tasks,
        low=low,
        high=high,
        p_value=mcnemar(only_a, only_b),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p value of the exact test."""
    trials = only_a + only_b
    tail = sum(math.comb(trials, k) for k in range(min(only_a, only_b) + 1)) / 2**trials
    return min(1.0, 2 * tail)


def _interval(only_a: int, only_b: int, tasks: int) -> tuple[float, float]:
    n = tasks + 2
    apart = only_a - only_b
    middle = apart / n
    half = Z95 * math.sqrt(only_a + only_b + 1 - apart**2 / n) / n
    return max(-1.0, middle - half), min(1.0, middle + half)
