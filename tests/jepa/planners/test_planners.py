"""Planners: the optimum of a quadratic, the better of two modes, bounds, budgets; what they took, and for whom."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from jepa.planners import cem, gradient, grasp, icem
from jepa.planners.base import Planner
from jepa.planners.cem import CEM
from jepa.planners.cost import Imagined, LatentCost, Term, goal_distance
from jepa.planners.gradient import Gradient
from jepa.planners.grasp import GRASP
from jepa.planners.icem import ICEM, colored
from jepa.planners.mppi import MPPI
from jepa.planners.random_shooting import RandomShooting
from jepa.predictors.base import LatentState
from jepa.predictors.mlp import MLPPredictor
from tests.jepa.planners.toy_planning import BUDGET, PLANNERS, Add, generator, quadratic

pytestmark = pytest.mark.usefixtures("one_thread")


def shooting(samples: int) -> RandomShooting:
    return RandomShooting(RandomShooting.Config(samples=samples))


def finds_the_optimum_of_a_quadratic(planner: Planner) -> None:
    best = torch.linspace(-0.8, 0.8, 3 * 4 * 2).view(3, 4, 2)
    plan = planner.plan(quadratic(best), torch.zeros(3, 4, 2), generator())
    torch.testing.assert_close(plan.actions, best, atol=0.03, rtol=0)
    torch.testing.assert_close(plan.cost, quadratic(best)(plan.actions[:, None])[:, 0])
    assert 0 < plan.evaluations < BUDGET


def finds_the_better_of_two_modes(planner: Planner) -> None:
    def cost(imagined: Imagined) -> Tensor:  # a wide valley at -0.5, a deeper one at 0.6
        x = imagined.actions.mean((-2, -1))
        return -torch.exp(-((x + 0.5) ** 2) / 0.02) - 2 * torch.exp(-((x - 0.6) ** 2) / 0.02)

    if isinstance(planner, Gradient | GRASP):
        planner = type(planner)(planner.config.model_copy(update={"starts": 30}))
    bimodal = LatentCost(Add(), LatentState(torch.zeros(8, 1, 1)), (Term(cost),))
    plan = planner.plan(bimodal, torch.zeros(8, 1, 1), generator())
    torch.testing.assert_close(plan.actions, torch.full((8, 1, 1), 0.6), atol=0.01, rtol=0)
    assert 0 < plan.evaluations < BUDGET


@pytest.mark.parametrize("planner", PLANNERS.values(), ids=list(PLANNERS))
def test_planners_find_the_optimum_of_a_quadratic_for_every_episode_of_a_batch(planner: Planner) -> None:
    finds_the_optimum_of_a_quadratic(planner)


@pytest.mark.parametrize("planner", [*PLANNERS.values(), shooting(3000)], ids=[*PLANNERS, "random"])
def test_planners_find_the_better_of_two_modes(planner: Planner) -> None:
    finds_the_better_of_two_modes(planner)


@pytest.mark.parametrize(
    ("name", "finds"),
    [
        ("gradient", finds_the_optimum_of_a_quadratic),
        ("gradient", finds_the_better_of_two_modes),
        ("grasp", finds_the_optimum_of_a_quadratic),
        ("grasp", finds_the_better_of_two_modes),
        ("hybrid", finds_the_optimum_of_a_quadratic),  # which of two modes it is in, its sampler finds
    ],
)
def test_planners_with_gradients_fail_these_if_their_optimizer_is_never_stepped(
    name: str, finds: Callable[[Planner], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what the two tests above find was found by steps, and not by the starts."""
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, closure=None: None)
    with pytest.raises(AssertionError, match="not close"):
        finds(PLANNERS[name])


def test_random_shooting_comes_as_near_as_chance_allows() -> None:
    best = torch.full((5, 1, 2), 0.3)
    few, many = (shooting(samples).plan(quadratic(best), torch.zeros(5, 1, 2), generator()) for samples in (10, 4000))
    assert many.cost.max() < 0.01 < few.cost.max() and many.evaluations == 4000


@pytest.mark.parametrize("planner", [*PLANNERS.values(), shooting(100)], ids=[*PLANNERS, "random"])
def test_planners_keep_within_their_bounds_and_repeat_themselves(planner: Planner) -> None:
    planner = planner.bounded(-0.5, 0.5)
    far = quadratic(torch.full((2, 3, 2), 3.0))
    plans = [planner.plan(far, torch.full((2, 3, 2), -2.0), generator()) for _ in range(2)]
    assert plans[0].actions.abs().max() <= 0.5 and torch.equal(plans[0].actions, plans[1].actions)


@pytest.mark.parametrize("planner", [*PLANNERS.values(), shooting(2)], ids=[*PLANNERS, "random"])
def test_a_plan_is_never_worse_than_the_one_it_started_from(planner: Planner) -> None:
    best = torch.full((2, 3, 1), 0.25)
    assert planner.plan(quadratic(best), best, generator()).cost.max() <= 1e-12


def test_a_cost_without_gradient_is_refused_by_gradient_planners() -> None:
    with pytest.raises(ValueError, match="no gradient with respect to the actions; use a sampling planner"):
        Gradient(Gradient.Config()).plan(lambda a: a.detach().sum((-2, -1)), torch.zeros(1, 2, 1), generator())
    with pytest.raises(ValueError, match="GRASP plans the latents too"):
        GRASP(GRASP.Config()).plan(lambda a: a.sum((-2, -1)), torch.zeros(1, 2, 1), generator())


def test_grasp_reaches_a_goal_over_a_long_horizon() -> None:
    goal = torch.tensor([[[6.0, -5.0]]])
    cost = goal_distance(Add(), LatentState(torch.zeros(1, 1, 2)), goal)
    straight = torch.tensor([1.0, -1.0]).repeat(1, 1, 10, 1)
    straight[:, :, 5:, 1], straight[:, :, 6:, 0] = 0.0, 0.0
    plan = GRASP(GRASP.Config(steps=150)).plan(cost, torch.zeros(1, 10, 2), generator())
    assert plan.cost.item() < 1.05 * cost(straight).item() < 0.5 * cost(torch.zeros(1, 1, 10, 2)).item()


def test_planners_stop_early_when_all_plans_are_good_enough() -> None:
    best = torch.zeros(2, 3, 1)
    for planner in (
        CEM(CEM.Config(cost_tolerance=0.5, iterations=50)),
        ICEM(ICEM.Config(cost_tolerance=0.5, iterations=50)),
        MPPI(MPPI.Config(cost_tolerance=0.5, iterations=50)),
    ):
        assert planner.plan(quadratic(best), best, generator()).evaluations <= 110
    assert Gradient(Gradient.Config(cost_tolerance=0.5)).plan(quadratic(best), best, generator()).evaluations == 16
    grasp_often = GRASP(GRASP.Config(cost_tolerance=0.5, sync_every=2))
    assert grasp_often.plan(quadratic(best), best, generator()).evaluations == 8 + 2 * 8 + 8


class Counted(Add):
    """Counts the latents that are predicted, and those of them through which gradients pass."""

    def __init__(self) -> None:
        self.steps = self.differentiated = 0

    def step(self, state, action, noise=None):
        self.steps += len(action)
        self.differentiated += len(action) * action.requires_grad
        return super().step(state, action, noise)


@pytest.mark.parametrize("planner", [*PLANNERS.values(), shooting(50)], ids=[*PLANNERS, "random"])
def test_what_a_plan_says_it_took_is_what_the_dynamics_were_asked(planner: Planner) -> None:
    episodes, horizon = 3, 5
    dynamics = Counted()
    cost = goal_distance(dynamics, LatentState(torch.zeros(episodes, 1, 2)), torch.ones(episodes, 1, 2))
    plan = planner.plan(cost, torch.zeros(episodes, horizon, 2), generator())
    each = dynamics.steps / episodes - plan.evaluations * horizon
    assert 0 <= each <= 1  # one step may measure what fits into memory
    assert dynamics.differentiated == episodes * horizon * plan.differentiated
    assert (plan.differentiated > 0) == (planner.gradient_free() is not planner)


def rows_of_noise(monkeypatch: pytest.MonkeyPatch, episodes: list[int]) -> None:
    """Planners draw for each of these episodes what they would draw for it alone."""
    drawn = {episode: torch.Generator().manual_seed(episode) for episode in episodes}

    def draw(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
        assert shape[0] == len(episodes)
        return torch.stack([torch.randn(shape[1:], generator=drawn[episode]) for episode in episodes])

    for module in (cem, icem, gradient, grasp):
        monkeypatch.setattr(module, "draw", draw)


@pytest.mark.parametrize("planner", PLANNERS.values(), ids=list(PLANNERS))
def test_an_episode_of_a_batch_gets_the_plan_that_it_gets_alone(
    planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the same noise: a generator deals it out in turn, so that whoever stands beside gets other numbers."""
    torch.manual_seed(0)
    dynamics = MLPPredictor(MLPPredictor.Config(hidden=16), 4, 2).requires_grad_(False)
    z, goals = torch.randn(2, 5, 1, 4, generator=generator())

    def plans(episodes: list[int]) -> Tensor:
        rows_of_noise(monkeypatch, episodes)
        cost = goal_distance(dynamics, LatentState(z[episodes]), goals[episodes])
        return planner.plan(cost, torch.zeros(len(episodes), 4, 2), generator()).actions

    together = plans([0, 1, 2, 3, 4])
    for episode in (0, 3):
        # Not to the last bit: matrices of other sizes are multiplied in another order.
        torch.testing.assert_close(plans([episode])[0], together[episode], atol=0.01, rtol=0)
    assert (together[0] - together[3]).abs().max() > 0.3


@pytest.mark.parametrize("planner", [*PLANNERS.values(), shooting(50)], ids=[*PLANNERS, "random"])
def test_a_plan_does_not_depend_on_what_the_episodes_beside_it_are(planner: Planner) -> None:
    goals = torch.randn(4, 1, 2, generator=generator())
    others = torch.cat([goals[:1], -3 * goals[1:]])
    found = [
        planner.plan(goal_distance(Add(), LatentState(torch.zeros(4, 1, 2)), g), torch.zeros(4, 3, 2), generator())
        for g in (goals, others)
    ]
    torch.testing.assert_close(found[0].actions[0], found[1].actions[0])
    assert not torch.equal(found[0].actions[1], found[1].actions[1])


def test_mppi_weighs_plans_alike_whatever_the_scale_of_the_costs() -> None:
    best = torch.linspace(-0.8, 0.8, 8).view(1, 4, 2)

    def plan(scale: float) -> Tensor:
        cost = quadratic(best)
        planner = MPPI(MPPI.Config())
        return planner.plan(lambda actions: scale * cost(actions), torch.zeros(1, 4, 2), generator()).actions

    plans = [plan(scale) for scale in (1e-6, 1.0, 1e6)]
    torch.testing.assert_close(plans[0], plans[1], atol=1e-3, rtol=0)
    torch.testing.assert_close(plans[2], plans[1], atol=1e-3, rtol=0)


@pytest.mark.parametrize("horizon", [1, 2, 7, 16])
@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_colored_noise_has_unit_variance_and_its_color(horizon: int, beta: float) -> None:
    noise = colored((20_000, horizon, 2), beta, torch.zeros(()), generator())
    assert noise.square().mean().item() == pytest.approx(1, abs=0.05)
    if horizon == 16:
        together = (noise[:, 1:] * noise[:, :-1]).mean().item()
        assert together > 0.7 if beta else abs(together) < 0.05


def test_costs_that_are_not_finite_are_counted_and_refused() -> None:
    def cost(actions: Tensor) -> Tensor:
        costs = actions.square().sum((-2, -1))
        costs[:, :3] = torch.nan
        return costs

    with pytest.raises(ValueError, match=r"6 of 200 plans .* in episodes \[0, 1\]"):
        CEM(CEM.Config(samples=100)).plan(cost, torch.zeros(2, 3, 2), generator())


@pytest.mark.parametrize(
    ("planner", "wrong"),
    [
        *((kind, wrong) for kind in (CEM, ICEM, MPPI) for wrong in ({"elites": 1}, {"elites": 200}, {"iterations": 0})),
        *((kind, {"min_std": 0.8}) for kind in (CEM, ICEM, MPPI)),
        *((kind, {"std": 1e5}) for kind in (CEM, ICEM, MPPI, Gradient, GRASP)),
        *((kind, {"cost_tolerance": -1.0}) for kind in (CEM, ICEM, MPPI, Gradient, GRASP)),
        *((kind, {"lr": lr}) for kind in (Gradient, GRASP) for lr in (0.0, 1e30, float("inf"))),
        *((GRASP, {key: -0.1}) for key in ("noise", "consistency")),
        *((GRASP, {key: float("inf")}) for key in ("noise", "consistency", "latent_lr")),
        (ICEM, {"decay": 0.5}),
        (ICEM, {"beta": 1e3}),
        (MPPI, {"temperature": float("inf")}),
        (MPPI, {"temperature": 0.0}),
        (Gradient, {"steps": 0}),
        (GRASP, {"starts": 0}),
        (RandomShooting, {"samples": 0}),
    ],
)
def test_settings_that_cannot_work_are_refused(planner: Any, wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        planner(planner.Config(**wrong))


@pytest.mark.parametrize("planner", [*PLANNERS.values(), shooting(1000)], ids=[*PLANNERS, "random"])
def test_a_horizon_of_zero_is_refused(planner: Planner) -> None:
    with pytest.raises(ValueError, match="horizon is 0"):
        planner.plan(quadratic(torch.zeros(1, 0, 2)), torch.zeros(1, 0, 2), generator())


def test_an_action_of_another_width_is_refused_by_the_dynamics() -> None:
    dynamics = MLPPredictor(MLPPredictor.Config(), 8, 4)
    with pytest.raises(ValueError, match="4 wide"):
        dynamics(torch.zeros(2, 1, 8), torch.zeros(2, 2))
