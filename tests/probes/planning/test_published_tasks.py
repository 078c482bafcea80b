"""Tasks as published: they start in mid-episode, at rest, and may be judged at any time. Ours are harder."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("pymunk", reason="push-t needs pymunk: pip install 'openjepa[pusht]'")

from jepa.agents.policy import PlanSettings
from jepa.config import UserError, from_dict
from jepa.planners.cem import CEM
from jepa.planners.mixture import Mixture
from jepa_data.worlds import make_batch
from jepa_probes.planning.baselines import replay, simulator_ceiling
from jepa_probes.planning.config import TasksConfig
from jepa_probes.planning.recordings import TrueSegments
from jepa_probes.planning.tasks import Protocol, Tasks
from jepa_probes.probing.features import Features

PUBLISHED = Protocol("push-t", 1, 32, 12, 50, 1.0, 1.0, 3, 25, "demonstrations", start_offset=60)


def test_tasks_start_in_mid_episode_at_rest_and_the_recorded_actions_solve_them() -> None:
    tasks, usual = Tasks(PUBLISHED), Tasks(replace(PUBLISHED, start_offset=None))
    start = tasks.start()
    assert (start.distance(usual.start().goal_state()) > 0.1).mean() > 0.8
    assert (start.states()[:, 5:] == 0).all(), "at rest"
    assert replay(tasks).all() and replay(usual).all()
    assert not tasks.reached(start.distance(tasks.goal)).any()
    gap = [
        np.linalg.norm(t.start().goal_state()[:, :2] - t.start().goal_state()[:, 2:4], axis=1) for t in (tasks, usual)
    ]
    assert np.median(gap[0]) < np.median(gap[1]), "the pusher is at work"
    fewer = Tasks(replace(PUBLISHED, tasks=5))
    np.testing.assert_array_equal(fewer.goal, tasks.goal[:5])
    np.testing.assert_array_equal(fewer.start().states(), start.states()[:5])


def test_a_task_that_passes_its_goal_is_solved_if_any_time_counts() -> None:
    solved = {}
    for judge in ("end", "ever"):
        tasks = Tasks(replace(PUBLISHED, judge=judge, steps=45))
        assert tasks.recorded is not None
        away = np.full((12, 20, 2), 0.5)
        actions = list(np.concatenate([tasks.recorded, away], 1).swapaxes(0, 1))
        solved[judge] = tasks.solved_by(lambda world, actions=actions: actions.pop(0))
    assert solved["ever"].all() and not solved["end"].any()
    with pytest.raises(UserError, match="start_offset is where goal_policy has got to: set goal_offset too"):
        from_dict({"start_offset": 5}, TasksConfig)


def recorded(policy: str, episodes: int, frames: int) -> TrueSegments:
    """By the states of fresh episodes."""
    world = make_batch("push-t", np.arange(episodes), seed=9)
    actions = world.act(policy, [np.random.default_rng(e) for e in range(episodes)], frames)
    states = [world.states()]
    for t in range(frames - 1):
        world.step(actions[:, t])
        states.append(world.states())
    seen = torch.from_numpy(np.stack(states, 1))
    keys = tuple(str(e) for e in range(episodes))
    features = Features(torch.zeros(episodes, frames, 1, 1), seen, {}, keys, tuple(world.state_names))
    segments = TrueSegments.of(features, torch.from_numpy(actions), world.state_names[:5])
    assert segments is not None
    return segments


@pytest.mark.slow
def test_recorded_segments_and_several_elites_solve_pushes_that_one_gaussian_does_not_find() -> None:
    tasks = Tasks(replace(PUBLISHED, tasks=8, goal_policy="pusher", start_offset=None))
    budget = {"samples": 48, "elites": 8, "iterations": 4, "std": 0.2}
    usual = PlanSettings(horizon=25, replan_every=5, running_cost_weight=0.0, budget=50)
    one = replace(usual, planner=CEM(CEM.Config.model_validate(budget)))
    several = replace(usual, planner=Mixture(Mixture.Config.model_validate(budget)), proposals=48)
    gaussian = simulator_ceiling(tasks, 1, one, None)
    found = simulator_ceiling(tasks, 1, several, None, segments=recorded("pusher", 600, 60))
    assert found.solved.mean() >= 0.75 and found.solved.sum() >= gaussian.solved.sum() + 2
