"""CEM, model-predictive control, and what a plan costs."""

import pytest
import torch
from torch import Tensor

from jepa.planners.cem import CEM
from jepa.planners.cost import goal_distance
from jepa.planners.mpc import ModelPredictiveControl
from jepa.predictors.markov import LatentState, MarkovPredictor
from jepa.world_model import Point


class Add:
    """Exact dynamics of a toy world: the action is added to the latent."""

    def init(self, z: Tensor, actions: Tensor) -> LatentState:
        return LatentState(z[:, -1])

    def step(self, state: LatentState, action: Tensor, noise: Tensor | None = None) -> tuple[LatentState, Point]:
        z = state.z + action[:, None]
        return LatentState(z), Point(z)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_cem_finds_the_optimum_of_a_quadratic_for_every_episode_of_a_batch() -> None:
    best = torch.linspace(-0.8, 0.8, 3 * 4 * 2).view(3, 4, 2)
    plan = CEM(samples=200, elites=20, iterations=12, min_std=1e-3).plan(
        lambda actions: (actions - best[:, None]).square().sum((-2, -1)), torch.zeros(3, 4, 2), generator()
    )
    torch.testing.assert_close(plan.actions, best, atol=0.02, rtol=0)


def test_cem_finds_the_better_of_two_modes() -> None:
    def cost(actions: Tensor) -> Tensor:  # a wide valley at -0.5, a deeper one at 0.6
        x = actions.mean((-2, -1))
        return -torch.exp(-((x + 0.5) ** 2) / 0.02) - 2 * torch.exp(-((x - 0.6) ** 2) / 0.02)

    plan = CEM(samples=300, elites=10, iterations=8).plan(cost, torch.zeros(4, 1, 1), generator())
    torch.testing.assert_close(plan.actions, torch.full((4, 1, 1), 0.6), atol=0.02, rtol=0)


def test_cem_never_returns_a_worse_plan_than_the_one_it_started_from() -> None:
    start = torch.full((2, 3, 1), 0.25)

    def cost(actions: Tensor) -> Tensor:
        return (actions - 0.25).abs().sum((-2, -1))

    assert CEM(samples=4, elites=2, iterations=1).plan(cost, start, generator()).cost.max() == 0


def test_cem_keeps_within_its_bounds() -> None:
    plan = CEM(low=-0.5, high=0.5).plan(lambda a: -a.sum((-2, -1)), torch.zeros(1, 3, 2), generator())
    assert plan.actions.max() <= 0.5
    torch.testing.assert_close(plan.actions, torch.full((1, 3, 2), 0.5), atol=0.05, rtol=0)


def test_the_same_generator_gives_the_same_plan() -> None:
    plans = [
        CEM(iterations=2).plan(lambda a: a.square().sum((-2, -1)), torch.zeros(2, 3, 2), generator()).actions
        for _ in range(2)
    ]
    assert torch.equal(*plans)


def test_costs_that_are_not_finite_are_counted_and_refused() -> None:
    def cost(actions: Tensor) -> Tensor:
        costs = actions.square().sum((-2, -1))
        costs[:, :3] = torch.nan
        return costs

    with pytest.raises(ValueError, match="6 of 200 plans"):
        CEM(samples=100).plan(cost, torch.zeros(2, 3, 2), generator())


@pytest.mark.parametrize("wrong", [{"elites": 1}, {"elites": 200}, {"iterations": 0}])
def test_settings_that_cannot_work_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="found"):
        CEM(**wrong)


def test_a_horizon_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon is 0"):
        CEM().plan(lambda a: a.sum((-2, -1)), torch.zeros(1, 0, 2), generator())


def test_planning_again_from_the_rest_of_the_last_plan_reaches_a_goal_that_one_plan_cannot() -> None:
    z, goal, control = torch.zeros(5, 1, 2), torch.full((5, 1, 2), 3.0), None
    control = ModelPredictiveControl(CEM(iterations=6), horizon=3, execute=1, action_size=2)
    for _ in range(6):
        state = LatentState(z)
        plan = control.plan(goal_distance(Add(), state, goal), len(z))
        z = z + plan.actions[:, :1]
    torch.testing.assert_close(z, goal, atol=0.1, rtol=0)


def test_the_path_weight_makes_the_agent_hurry() -> None:
    goal, state = torch.ones(1, 1, 1), LatentState(torch.zeros(1, 1, 1))
    early, late = torch.tensor([[[[1.0], [0.0]], [[0.0], [1.0]]]]).unbind(1)
    at_end, along = (goal_distance(Add(), state, goal, path_weight=w) for w in (0.0, 1.0))
    assert at_end(early[:, None]) == at_end(late[:, None])
    assert along(early[:, None]) < along(late[:, None])


def test_a_run_with_another_number_of_episodes_needs_a_reset() -> None:
    control = ModelPredictiveControl(CEM(), horizon=3, execute=1, action_size=2)
    control.plan(lambda a: a.square().sum((-2, -1)), 2)
    with pytest.raises(ValueError, match="reset"):
        control.plan(lambda a: a.square().sum((-2, -1)), 3)
    control.reset()
    control.plan(lambda a: a.square().sum((-2, -1)), 3)


def test_an_action_of_another_width_is_refused_by_the_dynamics() -> None:
    dynamics = MarkovPredictor(8, 4)
    with pytest.raises(ValueError, match="4 wide"):
        dynamics(torch.zeros(2, 1, 8), torch.zeros(2, 2))
