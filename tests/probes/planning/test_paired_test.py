"""Two agents on the same tasks: the exact test, and what cannot be compared."""

import math
from typing import Any

import numpy as np
import pytest

from jepa.config import UserError
from jepa_probes.planning.paired_test import compare, mcnemar
from jepa_probes.planning.result import PlanResult
from jepa_probes.planning.tasks import Protocol


def result(solved: list[bool], **protocol: Any) -> PlanResult:
    tasks = {"world": "two-rooms", "world_version": 1, "image_size": 64, "tasks": len(solved), "steps": 40}
    return PlanResult(
        **{"success": np.mean(solved), "low": 0.0, "high": 1.0, "tasks": len(solved), "ever_reached": 1.0},
        **{"baselines": {}, "median_distance": 0.1, "unit": "m", "plans_per_task": 1, "seconds_per_plan": 0.1},
        **{"seconds_per_plan_alone": 0.1, "model_calls_per_plan": 1, "differentiated_calls_per_plan": 0},
        **{"settings": {}, "seconds": 1.0},
        protocol=Protocol(**{**tasks, "radius": 0.08, "min_distance": 0.2, "seed": 0, **protocol}),
        distances=[0.01 if each else 0.5 for each in solved],
    )


def test_tasks_that_both_solve_or_miss_say_nothing() -> None:
    found = compare(result([True] * 50 + [False] * 50), result([True] * 50 + [False] * 50))
    assert (found.both, found.neither, found.only_a, found.only_b) == (50, 50, 0, 0)
    assert found.difference == 0 and found.p_value == 1 and found.low < 0 < found.high


@pytest.mark.parametrize(("only_a", "only_b"), [(8, 1), (1, 8), (20, 20), (0, 5), (3, 0)])
def test_p_is_the_chance_of_a_split_at_least_as_uneven(only_a: int, only_b: int) -> None:
    trials = only_a + only_b
    uneven = [k for k in range(trials + 1) if abs(k - trials / 2) >= abs(only_a - trials / 2)]
    assert mcnemar(only_a, only_b) == pytest.approx(sum(math.comb(trials, k) for k in uneven) / 2**trials)


def test_the_interval_holds_the_true_difference_about_95_times_in_100() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        draw = rng.uniform(size=200)
        a, b = draw < 0.8, (draw < 0.6) | (draw > 0.9)  # 0.8 and 0.7, and not independent
        found = compare(result(a.tolist()), result(b.tolist()))
        hits += found.low <= 0.1 <= found.high
    assert 0.92 <= hits / 400 <= 0.99


def test_other_tasks_are_refused_and_the_difference_is_named_but_models_may_see_other_sizes() -> None:
    with pytest.raises(UserError, match="seed is 0 for A and 1 for B"):
        compare(result([True]), result([True], seed=1))
    assert compare(result([True], image_size=64), result([False], image_size=224)).only_a == 1
