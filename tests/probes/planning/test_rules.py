"""Rules of tasks: regions on the way that must not be entered, and a limit of what actions cost."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from jepa.agents.policy import PlanSettings
from jepa.config import UserError
from jepa.planners.cem import CEM
from jepa.planners.cost import Imagined, keep_out
from jepa_data.worlds import make_goal_batch
from jepa_probes.planning.baselines import expert, random_floor, simulator_ceiling
from jepa_probes.planning.rules import CLEAR
from jepa_probes.planning.tasks import Protocol, Tasks

PLAIN = Protocol("billiards-easy", 1, 32, 30, 40, 0.08, 0.45, seed=3)


def test_a_region_lies_across_the_straight_line_and_clear_of_both_ends() -> None:
    tasks = Tasks(replace(PLAIN, keep_out_radius=0.15))
    assert tasks.regions is not None
    start, goal, center = tasks.start().goal_state(), tasks.goal, tasks.regions.center
    for end in (start, goal):
        assert (np.linalg.norm(end - center, axis=-1) >= CLEAR * 0.15 - 1e-9).all()
    line = start[:, None] + np.linspace(0, 1, 101)[None, :, None] * (goal - start)[:, None]
    nearest = np.linalg.norm(line - center[:, None], axis=-1).min(1)
    assert (nearest < 0.6 * 0.15).all() and nearest.std() > 0.01
    assert not tasks.regions.contains(tasks.start()).any()
    np.testing.assert_array_equal(Tasks(tasks.protocol).regions.center, center)  # pyright: ignore
    np.testing.assert_array_equal(tasks.goal, Tasks(PLAIN).goal)  # the rule changes nothing else of a task


def test_who_goes_straight_breaks_the_rule_and_who_knows_it_solves_the_same_tasks() -> None:
    tasks = Tasks(replace(PLAIN, keep_out_radius=0.12))
    straight = tasks.run(lambda world: world.expert(tasks.goal))
    assert tasks.reached(straight.distance).mean() > 0.9
    assert not straight.solved.any() and straight.entered.all()
    assert expert(Tasks(PLAIN)).mean() > 0.9
    settings = PlanSettings(horizon=5, replan_every=1, planner=CEM(CEM.Config(samples=48, elites=6, iterations=3)))
    assert simulator_ceiling(tasks, 2, settings, 20).solved.mean() >= 0.8


def test_who_pays_too_much_has_not_solved_the_task() -> None:
    free = Tasks(replace(PLAIN, max_action_cost=1000.0))
    played = free.run(lambda world: world.expert(free.goal))
    assert played.solved.mean() > 0.9 and (played.action_cost > 0).all() and not played.entered.any()
    limit = float(np.median(played.action_cost))
    limited = Tasks(replace(PLAIN, max_action_cost=limit)).run(lambda world: world.expert(free.goal))
    np.testing.assert_array_equal(limited.solved, played.solved & (played.action_cost <= limit))
    idle = free.run(lambda world: np.zeros((len(world), world.action_size)))
    assert (idle.action_cost == 0).all()
    full = free.run(lambda world: np.full((len(world), world.action_size), 7.0))  # the world cuts it to 1
    assert (full.action_cost == PLAIN.steps).all()


def test_an_action_cost_limit_is_part_of_the_true_cost() -> None:
    """The planner on the true simulator uses less force where force is limited."""
    settings = PlanSettings(horizon=5, replan_every=1, planner=CEM(CEM.Config(samples=48, elites=6, iterations=3)))
    loose = simulator_ceiling(Tasks(PLAIN), 2, settings, 12)
    limited = simulator_ceiling(Tasks(replace(PLAIN, max_action_cost=4.0)), 2, settings, 12)
    assert loose.solved.mean() > 0.9 and limited.solved.mean() > 0.6
    reckless = Tasks(replace(PLAIN, max_action_cost=4.0))
    assert random_floor(reckless, 2).mean() < 0.1


def test_regions_are_refused_where_they_could_close_the_only_way_or_do_not_fit() -> None:
    about = make_goal_batch("two-rooms", np.arange(1))
    rooms = Protocol("two-rooms", about.version, 64, 4, 10, about.radius, 0.3, seed=0, keep_out_radius=0.05)
    with pytest.raises(UserError, match="in two-rooms a region on the straight line to the goal could close"):
        Tasks(rooms)
    with pytest.raises(UserError, match=r"keep_out_radius is 0.3, so tasks must be at least 0.9 long, found"):
        Tasks(replace(PLAIN, keep_out_radius=0.3))


def test_each_episode_has_a_ball_of_its_own() -> None:
    latents = torch.tensor([[[[[0.0, 0.0]]]], [[[[1.0, 0.0]]]]])  # [B=2, K=1, H=1, N=1, D=2]
    imagined = Imagined(latents, torch.zeros(2, 1, 1, 1))

    def read(z: torch.Tensor) -> torch.Tensor:
        return z[..., 0, :]

    own = keep_out(read, torch.tensor([[0.0, 0.0], [1.0, 0.5]]), 1.0)
    torch.testing.assert_close(own(imagined), torch.tensor([[1.0], [0.5]]))
    one = Imagined(latents[:1], torch.zeros(1, 1, 1, 1))  # the first of the tasks alone
    torch.testing.assert_close(own(one), torch.tensor([[1.0]]))
    torch.testing.assert_close(keep_out(read, (0.0, 0.0), 2.0)(imagined), torch.tensor([[1.0], [0.5]]))
