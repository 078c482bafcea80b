"""The planning benchmark: its ceiling, tasks that are held out and do not begin solved, and the interval."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from jepa.agents.policy import PlanSettings
from jepa.config import UserError
from jepa.planners.cem import CEM
from jepa.planners.gradient import Gradient
from jepa.planners.hybrid import Hybrid
from jepa_data.worlds import make_batch, make_goal_batch
from jepa_probes.planning.baselines import random_floor, replay, simulator_ceiling
from jepa_probes.planning.tasks import Protocol, Tasks, wilson


def test_cem_over_true_dynamics_solves_two_rooms():
    about = make_batch("two-rooms", np.arange(1))
    tasks = Tasks(Protocol("two-rooms", about.version, 64, 60, 200, about.radius, about.radius, seed=7))
    settings = PlanSettings(
        horizon=4, replan_every=1, action_repeat=5, planner=CEM(CEM.Config(samples=100, elites=10, iterations=4))
    )
    episodes = simulator_ceiling(tasks, 5, settings, None)
    assert episodes is not None and episodes.solved.mean() >= 0.99
    assert random_floor(tasks, 5).mean() < 0.05


@pytest.mark.parametrize("world", ["billiards-easy", "two-rooms", "two-rooms-random-wall"])
@pytest.mark.parametrize("goal_offset", [None, 8])
def test_no_task_begins_solved_though_many_would(world, goal_offset):
    about = make_goal_batch(world, np.arange(1))
    least = about.radius
    tasks = Tasks(Protocol(world, about.version, 64, 150, 1, least, least, 3, goal_offset, about.policies[0]))
    begin = tasks.start()
    assert not tasks.reached(begin.distance(tasks.goal)).any()
    assert (begin.distance(tasks.goal) >= least).all() and len(np.unique(tasks.goal, axis=0)) == 150
    far = Tasks(Protocol(world, about.version, 64, 150, 1, least, 1.3 * least, 3, goal_offset, about.policies[0]))
    assert (far.start().distance(far.goal) >= 1.3 * least).all()
    if goal_offset is not None:  # a walk of eight steps often stays near: such goals were drawn again
        near = begin.take(np.arange(150))
        generators = [np.random.default_rng(i) for i in range(150)]
        for action in near.act(about.policies[0], generators, goal_offset + 1).swapaxes(0, 1):
            near.step(action)
        assert 0.03 < tasks.reached(begin.distance(near.goal_state())).mean() < 1


def test_the_tasks_are_a_function_of_the_protocol_and_are_held_out():
    about = make_goal_batch("two-rooms-random-wall", np.arange(1))
    protocol = Protocol("two-rooms-random-wall", about.version, 64, 20, 1, 0.07, 0.07, seed=4)
    first, again = Tasks(protocol), Tasks(protocol)
    np.testing.assert_array_equal(first.goal, again.goal)
    np.testing.assert_array_equal(first.goal_images, again.goal_images)
    np.testing.assert_array_equal(first.start().states(), again.start().states())
    assert (first.goal != Tasks(replace(protocol, seed=5)).goal).any()
    few = Tasks(replace(protocol, image_size=32))  # what is seen is no part of the task
    np.testing.assert_array_equal(few.goal, first.goal)
    recorded = make_batch("two-rooms-random-wall", np.arange(2000), seed=4).states()
    told = first.start().states()
    assert not (told[:, None] == recorded[None]).all(-1).any()
    with pytest.raises(UserError, match=r"min_distance \(0.05\) is below the radius of success \(0.07\)"):
        Tasks(replace(protocol, min_distance=0.05))


@pytest.mark.parametrize(("solved", "tasks"), [(1, 200), (94, 100), (7, 10), (50, 100)])
def test_the_interval_holds_the_shares_that_a_score_test_would_not_reject(solved, tasks):
    share, low, high = wilson(solved, tasks)
    assert share == solved / tasks and low < share < high
    for edge in (low, high):  # Wilson's definition: there the score statistic is 1.96
        assert abs(share - edge) / np.sqrt(edge * (1 - edge) / tasks) == pytest.approx(1.959964, rel=1e-6)


def test_the_interval_begins_at_no_task_and_ends_at_all():
    assert wilson(0, 200)[:2] == (0.0, 0.0) and wilson(200, 200)[2] == 1.0


@pytest.mark.parametrize(
    ("world", "policy"), [("two-rooms", "random"), ("billiards-easy", "random"), ("push-t", "pusher")]
)
def test_the_recorded_actions_lead_to_the_goals_again(world, policy):
    if world == "push-t":
        pytest.importorskip("pymunk")
    about = make_batch(world, np.arange(1))
    described = Protocol(world, about.version, 64, 8, 25, about.radius, about.radius, 3, 25, policy)
    tasks = Tasks(described)
    assert replay(tasks).all(), "as often as it is tried: a world has no chance of its own"
    assert not tasks.reached(tasks.start().distance(tasks.goal)).any()
    swapped = Tasks(described)
    swapped.recorded = swapped.recorded[::-1]
    assert replay(swapped).mean() < 0.5, "it is these actions that lead there"


def test_goals_that_the_world_draws_were_recorded_by_nobody():
    about = make_batch("two-rooms", np.arange(1))
    assert Tasks(Protocol("two-rooms", about.version, 64, 4, 25, about.radius, about.radius, seed=3)).recorded is None


def test_plans_on_the_simulator_start_where_they_are_led() -> None:
    """So narrow a search finds nothing by itself, and keeps the way that it is shown."""
    about = make_goal_batch("two-rooms", np.arange(1))
    tasks = Tasks(Protocol("two-rooms", about.version, 64, 6, 60, about.radius, about.radius, seed=3))
    narrow = PlanSettings(
        horizon=12, replan_every=12, planner=CEM(CEM.Config(samples=4, elites=2, iterations=1, std=1e-3, min_std=1e-4))
    )

    def lead(world):
        imagined, done = world.take(np.arange(len(world))), []
        for _ in range(60):
            done.append(np.clip(imagined.expert(tasks.goal), -1, 1))
            imagined.step(done[-1])
        return torch.from_numpy(np.stack(done, 1)).float()

    led, alone = simulator_ceiling(tasks, 5, narrow, None, lead), simulator_ceiling(tasks, 5, narrow, None)
    assert led is not None and led.solved.mean() > 0.8
    assert alone is not None and alone.solved.mean() == 0


def test_of_a_planner_only_what_needs_no_gradient_plays_on_the_simulator() -> None:
    about = make_goal_batch("two-rooms", np.arange(1))
    tasks = Tasks(Protocol("two-rooms", about.version, 64, 2, 10, about.radius, about.radius, seed=3))
    few = CEM.Config(samples=4, elites=2, iterations=1)
    kinds = (Gradient(Gradient.Config()), Hybrid(Hybrid.Config(sampler=few)), CEM(few))
    gradient, hybrid, sampler = (
        simulator_ceiling(tasks, 5, PlanSettings(horizon=2, replan_every=1, planner=planner), None) for planner in kinds
    )
    assert gradient is None and hybrid is not None and sampler is not None
    assert hybrid.solved.tolist() == sampler.solved.tolist()
    assert simulator_ceiling(tasks, 5, PlanSettings(planner=CEM(few)), 0) is None
