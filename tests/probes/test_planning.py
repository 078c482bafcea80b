"""The ceiling of the planning benchmark: the planner itself, told the truth."""

import numpy as np
import pytest

from jepa.agents.policy import PlanSettings
from jepa.planners.cem import CEM
from jepa_data.worlds import make_batch
from jepa_probes.planning import random_floor, replay, simulator_ceiling
from jepa_probes.tasks import Protocol, Tasks, wilson


def test_cem_over_true_dynamics_solves_two_rooms():
    about = make_batch("two-rooms", np.arange(1))
    tasks = Tasks(Protocol("two-rooms", about.version, 64, 200, 200, about.radius, about.radius, seed=7))
    settings = PlanSettings(horizon=4, execute=1, hold=5, planner=CEM(samples=100, elites=10, iterations=4))
    solved = simulator_ceiling(tasks, 5, settings, None)
    assert solved.mean() >= 0.99
    assert random_floor(tasks, 5).mean() < 0.05


@pytest.mark.parametrize(("solved", "tasks"), [(1, 200), (94, 100), (7, 10), (50, 100)])
def test_the_interval_holds_the_shares_that_a_score_test_would_not_reject(solved, tasks):
    share, low, high = wilson(solved, tasks)
    assert share == solved / tasks and low < share < high
    for edge in (low, high):  # Wilson's definition: there the score statistic is 1.96
        assert abs(share - edge) / np.sqrt(edge * (1 - edge) / tasks) == pytest.approx(1.959964, rel=1e-6)


def test_the_interval_begins_at_no_task_and_ends_at_all():
    assert wilson(0, 200)[:2] == (0.0, 0.0) and wilson(200, 200)[2] == 1.0


@pytest.mark.parametrize(("world", "policy"), [("two-rooms", "random"), ("billiards-easy", "random"), ("push-t", "pusher")])
def test_the_recorded_actions_lead_to_the_goals_again(world, policy):
    if world == "push-t":
        pytest.importorskip("pymunk")
    about = make_batch(world, np.arange(1))
    described = Protocol(world, about.version, 64, 8, 25, about.radius, about.radius, 3, 25, policy)
    tasks = Tasks(described)
    assert replay(tasks).all(), "as often as it is tried: a world has no chance of its own"
    assert not tasks.solved(tasks.start().distance(tasks.goal)).any()
    swapped = Tasks(described)
    swapped.recorded = swapped.recorded[::-1]
    assert replay(swapped).mean() < 0.5, "it is these actions that lead there"


def test_goals_that_the_world_draws_were_recorded_by_nobody():
    about = make_batch("two-rooms", np.arange(1))
    assert Tasks(Protocol("two-rooms", about.version, 64, 4, 25, about.radius, about.radius, seed=3)).recorded is None
