"""Encoder + planner as a policy: what is encoded and when, what plans cost, and what does not fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jepa.agents.controller import ActionSpace, Linear, ObservationNormalizer
from jepa.agents.imagination.policy import ImaginationPolicy
from jepa.agents.policy import PlanSettings, Policy
from jepa.config import UserError
from jepa.planners.cem import CEM
from jepa.planners.cost import Term, action_cost
from jepa.predictors.mlp import MLPPredictor
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing
from jepa_data.worlds import make_batch, make_env
from jepa_probes.planning.evaluate import evaluate
from jepa_probes.planning.tasks import Protocol, Tasks

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE, WIDTH = 32, 6


class Counting(nn.Module):
    """An encoder that notes how many clips and frames it is shown each time."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, WIDTH)
        self.shown: list[tuple[int, int]] = []

    def forward(self, video: Tensor) -> Tensor:
        self.shown.append(tuple(video.shape[:2]))
        return self.map(video.mean((-2, -1)).unflatten(1, (-1, 2)).mean(2))[:, :, None]


def model(action_size: int = 2) -> LatentWorldModel:
    torch.manual_seed(0)
    spec = LatentSpec(tokens=1, width=WIDTH, step_seconds=0.2, frames_per_step=2, action_size=action_size)
    dynamics = MLPPredictor(MLPPredictor.Config(hidden=16), WIDTH, spec.block_size)
    seen = Preprocessing(SIZE, 10.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return LatentWorldModel(Counting(), dynamics, spec, seen).eval().requires_grad_(False)


SETTINGS = PlanSettings(horizon=3, replan_every=1, planner=CEM(CEM.Config(samples=64, elites=8, iterations=3)))


def test_a_plan_encodes_each_episode_once_and_no_candidate() -> None:
    acting = model()
    encoder = acting.encoder
    assert isinstance(encoder, Counting)
    goals = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    policy = Policy(acting, goals, SETTINGS)
    assert encoder.shown == [(5, 2)]  # the goals, standing still
    for _ in range(4):
        policy.act(goals)
    assert policy.plans == 2 and policy.evaluations == 2 * 3 * 64
    assert encoder.shown == [(5, 2)] * 3  # and for each plan the present step of each episode


def test_other_terms_of_the_cost_change_what_is_done() -> None:
    goal = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)
    lazy = PlanSettings(horizon=3, replan_every=1, planner=SETTINGS.planner, terms=(Term(action_cost(), 1000.0),))
    done = [np.abs(Policy(model(), goal, settings).act(0 * goal)).max() for settings in (SETTINGS, lazy)]
    assert done[0] > 0.3 > 0.15 > done[1]


@pytest.mark.parametrize("settings", [{"horizon": 0, "replan_every": 0}, {"horizon": 2, "replan_every": 3}])
def test_a_loop_that_cannot_run_is_refused_before_anything_is_seen(settings: dict) -> None:
    with pytest.raises(
        ValueError, match=r"the planning horizon is 0|replan_every must lie between 1 and the horizon \(2\)"
    ):
        Policy(model(), np.zeros((SIZE, SIZE, 3), np.uint8), PlanSettings(**settings))


def test_a_goal_of_another_size_is_reported_by_both_kinds_of_policy() -> None:
    goal, seen = np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((48, 48, 3), np.uint8)
    controller = Linear(ObservationNormalizer(1, WIDTH), ActionSpace(2, frames=2))
    for policy in (Policy(model(), goal, SETTINGS), ImaginationPolicy(model(), controller, goal)):
        with pytest.raises(UserError, match=r"the goal has shape \(32, 32, 3\), the observation \(48, 48, 3\)"):
            policy.act(seen)


def test_actions_of_another_width_than_the_worlds_are_reported() -> None:
    about = make_batch("two-rooms", np.arange(1))
    protocol = Protocol("two-rooms", about.version, SIZE, 2, 4, 0.07, 0.07, seed=0)
    with pytest.raises(UserError, match="the model's actions are 3 wide; two-rooms takes 2 numbers 1 time"):
        evaluate(model(action_size=3), Tasks(protocol), SETTINGS)
    env = make_env("two-rooms", image_size=SIZE)
    _, info = env.reset(seed=0)
    action = Policy(model(action_size=3), info["goal_image"], SETTINGS).act(info["goal_image"])
    with pytest.raises(UserError, match=r"two-rooms takes actions of shape \(2,\), found \(3,\)"):
        env.step(action)


def test_costs_that_are_not_finite_are_named_with_their_episodes_and_leave_no_plan() -> None:
    broken = model()
    dynamics = broken.dynamics
    assert isinstance(dynamics, MLPPredictor)
    dynamics.leave.bias[0] = float("nan")
    goals = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    policy = Policy(broken, goals, SETTINGS)
    with pytest.raises(ValueError, match=r"192 of 192 plans have a cost that is not finite, in episodes \[0, 1, 2\]"):
        policy.act(goals)
    assert policy.last_plan is None and policy.plans == 0


def test_a_model_without_dynamics_plans_nothing() -> None:
    blind = model()
    blind.dynamics = None
    with pytest.raises(UserError, match="this model has no dynamics, so it cannot plan"):
        Policy(blind, np.zeros((SIZE, SIZE, 3), np.uint8), SETTINGS)


def test_where_nothing_moved_as_imagined_one_action_is_drawn_and_held(monkeypatch: pytest.MonkeyPatch) -> None:
    goals = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    done = []
    for random_action_if_stuck in (0.0, 0.2):
        policy = Policy(model(), goals, replace(SETTINGS, random_action_if_stuck=random_action_if_stuck, keep=False))
        seen = torch.randn(2, 1, 1, WIDTH, generator=torch.Generator().manual_seed(0))
        monkeypatch.setattr(policy, "_encoded", lambda seen=seen: seen)
        first = [policy.act(goals), policy.act(goals)]
        seen[0] = policy.imagine()[0, :1]  # one goes where it was to go, the other stays
        done.append(np.stack([*first, policy.act(goals), policy.act(goals)], 1))
    planned, drawn = done
    assert (drawn[0] == planned[0]).all() and (drawn[1, :2] == planned[1, :2]).all()
    assert (drawn[1, 2] == drawn[1, 3]).all() and (planned[1, 2] != planned[1, 3]).all()
    assert (np.abs(drawn) <= 1).all() and np.abs(drawn[1, 2] - planned[1, 2]).max() > 0.1


def test_where_little_was_imagined_nobody_is_stuck() -> None:
    goals = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    policy = Policy(model(), goals, replace(SETTINGS, random_action_if_stuck=0.2))
    policy.act(goals)
    began, there = torch.zeros(2, 1, WIDTH), torch.ones(2, 1, WIDTH)
    policy._expected = began, there
    assert policy._stuck(began).tolist() == [True, True] and policy._stuck(0.3 * there).tolist() == [False, False]
    policy._expected = began, there * torch.tensor([0.3, 0.5])[:, None, None]
    assert policy._stuck(began).tolist() == [False, True]
    policy.reset()
    assert policy._stuck(began) is None


def test_an_unstick_of_more_than_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"from 0 to below 1; found 1\.5"):
        PlanSettings(random_action_if_stuck=1.5)
