"""Planners: the optimum of a quadratic, the better of two modes, bounds, budgets; control; what a plan costs."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from jepa.decoders.state import LinearRead
from jepa.planners import cem, gradient, grasp, icem, mppi
from jepa.planners.base import Planner
from jepa.planners.cem import CEM
from jepa.planners.cost import (
    Imagined,
    LatentCost,
    Term,
    effort,
    goal_distance,
    goal_reached,
    inside,
    picture_reached,
    state_reached,
)
from jepa.planners.gradient import Gradient
from jepa.planners.grasp import GRASP
from jepa.planners.hybrid import Hybrid
from jepa.planners.icem import ICEM, coloured
from jepa.planners.mpc import ModelPredictiveControl
from jepa.planners.mppi import MPPI
from jepa.planners.random_shooting import RandomShooting
from jepa.predictors.markov import LatentState, MarkovPredictor
from jepa.world_model import Point

pytestmark = pytest.mark.usefixtures("one_thread")
PLANNERS: dict[str, Planner] = {
    "cem": CEM(samples=200, elites=20, iterations=12, min_std=1e-3),
    "icem": ICEM(samples=300, elites=20, iterations=12, min_std=1e-3, beta=0.5),
    "mppi": MPPI(samples=240, elites=30, iterations=16, min_std=1e-3, temperature=1.0),
    "gradient": Gradient(steps=100, lr=0.05, starts=4),
    "hybrid": Hybrid(CEM(iterations=4), Gradient(steps=60, lr=0.02, starts=1)),
    "grasp": GRASP(steps=120, lr=0.05, starts=4),
}
BUDGET = 4000  # candidates for each episode, about


class Add:
    """Exact dynamics of a toy world: the action is added to the latent."""

    def init(self, z: Tensor, actions: Tensor) -> LatentState:
        return LatentState(z[:, -1])

    def step(self, state: LatentState, action: Tensor, noise: Tensor | None = None) -> tuple[LatentState, Point]:
        z = state.z + action[:, None]
        return LatentState(z), Point(z)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def quadratic(best: Tensor) -> LatentCost:
    """A `LatentCost`, so that GRASP can have it: the actions themselves shall be `best`."""
    state = LatentState(torch.zeros(len(best), 1, best.shape[-1]))
    apart = Term(lambda imagined: (imagined.actions - best[:, None]).square().sum((-2, -1)))
    return LatentCost(Add(), state, (apart,))


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
        planner = replace(planner, starts=30)
    bimodal = LatentCost(Add(), LatentState(torch.zeros(8, 1, 1)), (Term(cost),))
    plan = planner.plan(bimodal, torch.zeros(8, 1, 1), generator())
    torch.testing.assert_close(plan.actions, torch.full((8, 1, 1), 0.6), atol=0.01, rtol=0)
    assert 0 < plan.evaluations < BUDGET


@pytest.mark.parametrize("planner", PLANNERS.values(), ids=list(PLANNERS))
def test_planners_find_the_optimum_of_a_quadratic_for_every_episode_of_a_batch(planner: Planner) -> None:
    finds_the_optimum_of_a_quadratic(planner)


@pytest.mark.parametrize("planner", [*PLANNERS.values(), RandomShooting(3000)], ids=[*PLANNERS, "random"])
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
def test_planners_with_gradients_fail_these_if_their_optimiser_is_never_stepped(
    name: str, finds: Callable[[Planner], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what the two tests above find was found by steps, and not by the starts."""
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, closure=None: None)
    with pytest.raises(AssertionError, match="not close"):
        finds(PLANNERS[name])


def test_random_shooting_comes_as_near_as_chance_allows() -> None:
    best = torch.full((5, 1, 2), 0.3)
    few, many = (
        RandomShooting(samples).plan(quadratic(best), torch.zeros(5, 1, 2), generator()) for samples in (10, 4000)
    )
    assert many.cost.max() < 0.01 < few.cost.max() and many.evaluations == 4000


@pytest.mark.parametrize("planner", [*PLANNERS.values(), RandomShooting(100)], ids=[*PLANNERS, "random"])
def test_planners_keep_within_their_bounds_and_repeat_themselves(planner: Planner) -> None:
    if not isinstance(planner, Hybrid):
        planner = replace(planner, low=-0.5, high=0.5)  # pyright: ignore[reportArgumentType]
    bound = 1.0 if isinstance(planner, Hybrid) else 0.5
    far = quadratic(torch.full((2, 3, 2), 3.0))
    plans = [planner.plan(far, torch.full((2, 3, 2), -2.0), generator()) for _ in range(2)]
    assert plans[0].actions.abs().max() <= bound and torch.equal(plans[0].actions, plans[1].actions)


@pytest.mark.parametrize("planner", [*PLANNERS.values(), RandomShooting(2)], ids=[*PLANNERS, "random"])
def test_a_plan_is_never_worse_than_the_one_it_started_from(planner: Planner) -> None:
    best = torch.full((2, 3, 1), 0.25)
    assert planner.plan(quadratic(best), best, generator()).cost.max() <= 1e-12


def test_a_cost_without_gradient_is_refused_by_gradient_planners() -> None:
    with pytest.raises(ValueError, match="no gradient with respect to the actions; use a sampling planner"):
        Gradient().plan(lambda a: a.detach().sum((-2, -1)), torch.zeros(1, 2, 1), generator())
    with pytest.raises(ValueError, match="GRASP plans the latents too"):
        GRASP().plan(lambda a: a.sum((-2, -1)), torch.zeros(1, 2, 1), generator())


def test_grasp_reaches_a_goal_over_a_long_horizon() -> None:
    goal = torch.tensor([[[6.0, -5.0]]])
    cost = goal_distance(Add(), LatentState(torch.zeros(1, 1, 2)), goal)
    straight = torch.tensor([1.0, -1.0]).repeat(1, 1, 10, 1)
    straight[:, :, 5:, 1], straight[:, :, 6:, 0] = 0.0, 0.0
    plan = GRASP(steps=150).plan(cost, torch.zeros(1, 10, 2), generator())
    assert plan.cost.item() < 1.05 * cost(straight).item() < 0.5 * cost(torch.zeros(1, 1, 10, 2)).item()


def test_planners_stop_early_when_all_plans_are_good_enough() -> None:
    best = torch.zeros(2, 3, 1)
    for planner in (CEM(enough=0.5, iterations=50), ICEM(enough=0.5, iterations=50), MPPI(enough=0.5, iterations=50)):
        assert planner.plan(quadratic(best), best, generator()).evaluations <= 110
    assert Gradient(enough=0.5).plan(quadratic(best), best, generator()).evaluations == 16
    assert GRASP(enough=0.5, sync_every=2).plan(quadratic(best), best, generator()).evaluations == 8 + 2 * 8 + 8


class Counted(Add):
    """Counts the latents that are predicted, and those of them through which gradients pass."""

    def __init__(self) -> None:
        self.steps = self.differentiated = 0

    def step(self, state, action, noise=None):
        self.steps += len(action)
        self.differentiated += len(action) * action.requires_grad
        return super().step(state, action, noise)


@pytest.mark.parametrize("planner", [*PLANNERS.values(), RandomShooting(50)], ids=[*PLANNERS, "random"])
def test_what_a_plan_says_it_took_is_what_the_dynamics_were_asked(planner: Planner) -> None:
    episodes, horizon = 3, 5
    dynamics = Counted()
    cost = goal_distance(dynamics, LatentState(torch.zeros(episodes, 1, 2)), torch.ones(episodes, 1, 2))
    plan = planner.plan(cost, torch.zeros(episodes, horizon, 2), generator())
    each = dynamics.steps / episodes - plan.evaluations * horizon
    assert 0 <= each <= 1  # one step may measure what fits into memory
    assert dynamics.differentiated == episodes * horizon * plan.differentiated
    assert (plan.differentiated > 0) == isinstance(planner, Gradient | GRASP | Hybrid)


def rows_of_noise(monkeypatch: pytest.MonkeyPatch, episodes: list[int]) -> None:
    """Planners draw for each of these episodes what they would draw for it alone."""
    drawn = {episode: torch.Generator().manual_seed(episode) for episode in episodes}

    def draw(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
        assert shape[0] == len(episodes)
        return torch.stack([torch.randn(shape[1:], generator=drawn[episode]) for episode in episodes])

    for module in (cem, icem, mppi, gradient, grasp):
        monkeypatch.setattr(module, "draw", draw)


@pytest.mark.parametrize("planner", PLANNERS.values(), ids=list(PLANNERS))
def test_an_episode_of_a_batch_gets_the_plan_that_it_gets_alone(
    planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the same noise: a generator deals it out in turn, so that whoever stands beside gets other numbers."""
    torch.manual_seed(0)
    dynamics = MarkovPredictor(4, 2, hidden=16).requires_grad_(False)
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


@pytest.mark.parametrize("planner", [*PLANNERS.values(), RandomShooting(50)], ids=[*PLANNERS, "random"])
def test_a_plan_does_not_depend_on_what_the_episodes_beside_it_are(planner: Planner) -> None:
    goals = torch.randn(4, 1, 2, generator=generator())
    others = torch.cat([goals[:1], -3 * goals[1:]])
    found = [
        planner.plan(goal_distance(Add(), LatentState(torch.zeros(4, 1, 2)), g), torch.zeros(4, 3, 2), generator())
        for g in (goals, others)
    ]
    assert torch.equal(found[0].actions[0], found[1].actions[0])
    assert not torch.equal(found[0].actions[1], found[1].actions[1])


def test_mppi_weighs_plans_alike_whatever_the_scale_of_the_costs() -> None:
    best = torch.linspace(-0.8, 0.8, 8).view(1, 4, 2)

    def plan(scale: float) -> Tensor:
        cost = quadratic(best)
        return MPPI().plan(lambda actions: scale * cost(actions), torch.zeros(1, 4, 2), generator()).actions

    plans = [plan(scale) for scale in (1e-6, 1.0, 1e6)]
    torch.testing.assert_close(plans[0], plans[1], atol=1e-3, rtol=0)
    torch.testing.assert_close(plans[2], plans[1], atol=1e-3, rtol=0)


@pytest.mark.parametrize("horizon", [1, 2, 7, 16])
@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_coloured_noise_has_unit_variance_and_its_colour(horizon: int, beta: float) -> None:
    noise = coloured((20_000, horizon, 2), beta, torch.zeros(()), generator())
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
        CEM(samples=100).plan(cost, torch.zeros(2, 3, 2), generator())


@pytest.mark.parametrize(
    ("planner", "wrong"),
    [
        *((kind, wrong) for kind in (CEM, ICEM, MPPI) for wrong in ({"elites": 1}, {"elites": 200}, {"iterations": 0})),
        (ICEM, {"decay": 0.5}),
        (MPPI, {"temperature": 0.0}),
        (Gradient, {"steps": 0}),
        (GRASP, {"starts": 0}),
        (RandomShooting, {"samples": 0}),
    ],
)
def test_settings_that_cannot_work_are_refused(planner: type, wrong: dict) -> None:
    with pytest.raises(ValueError, match="found"):
        planner(**wrong)


@pytest.mark.parametrize("planner", [*PLANNERS.values(), RandomShooting()], ids=[*PLANNERS, "random"])
def test_a_horizon_of_zero_is_refused(planner: Planner) -> None:
    with pytest.raises(ValueError, match="horizon is 0"):
        planner.plan(quadratic(torch.zeros(1, 0, 2)), torch.zeros(1, 0, 2), generator())


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


def test_terms_of_a_cost_add_up() -> None:
    state, actions = LatentState(torch.zeros(2, 1, 2)), torch.full((2, 3, 4, 2), 0.5)
    goal = torch.ones(2, 1, 2)

    def position(z: Tensor) -> Tensor:
        return z[..., 0, :]

    alone = {
        "goal": goal_reached(goal, path_weight=0.0),
        "effort": effort(),
        "state": state_reached(position, torch.zeros(2, 2)),
        "inside": inside(position, [2.0, 2.0], 1.0),
    }
    found = {name: LatentCost(Add(), state, (Term(term),))(actions)[0, 0].item() for name, term in alone.items()}
    # The steps lie at 0.5, 1.0, 1.5 and 2.0; the forbidden ball reaches from 1.29 to 2.71 along the diagonal.
    assert found == pytest.approx({"goal": 1.0, "effort": 0.25, "state": 4.0, "inside": (1 + 1 - 0.5 * 2**0.5) / 4})
    total = LatentCost(Add(), state, tuple(Term(term, 2.0) for term in alone.values()))(actions)
    torch.testing.assert_close(total, torch.full((2, 3), 2 * sum(found.values())))
    with pytest.raises(ValueError, match="at least one term"):
        LatentCost(Add(), state, ())
    with pytest.raises(ValueError, match=r"term 0 of the cost: expected .* = \[2, 3\], found \[2, 3, 4\]"):
        LatentCost(Add(), state, (Term(lambda imagined: imagined.actions.sum(-1)),))(actions)


def test_a_forbidden_region_is_gone_around() -> None:
    state, goal = LatentState(torch.zeros(1, 1, 2)), torch.tensor([[[4.0, 0.0]]])

    def position(z: Tensor) -> Tensor:
        return z[..., 0, :]

    def depth(*terms: Term) -> tuple[float, float]:
        cost = LatentCost(Add(), state, terms)
        plan = CEM(samples=400, elites=20, iterations=20).plan(cost, torch.zeros(1, 8, 2), generator())
        at = plan.actions.cumsum(1)
        return (at - torch.tensor([2.0, 0.0])).norm(dim=-1).min().item(), (at[:, -1] - goal[:, 0]).norm().item()

    through, _ = depth(Term(goal_reached(goal)))
    around, left = depth(Term(goal_reached(goal)), Term(inside(position, [2.0, 0.0], 1.0), 20.0))
    assert through < 0.7 and around > 0.95 and left < 0.3


def test_a_forbidden_region_is_told_in_states_that_are_read_off_the_latents() -> None:
    """The latent is a mix of the position; what reads it back is fitted to examples."""
    mix = torch.tensor([[0.3, -1.0], [0.8, 0.5]])

    class Mixed(Add):
        def step(self, state, action, noise=None):
            return super().step(state, action @ mix, noise)

    positions = torch.randn(200, 2, generator=generator())
    read = LinearRead((positions @ mix)[:, None] + 1.0, 64 * positions + 32)  # in other units, from another origin
    state = LatentState(torch.ones(1, 1, 2))
    goal = (torch.tensor([[4.0, 0.0]]) @ mix)[:, None] + 1.0

    def nearest(*more: Term) -> float:
        cost = LatentCost(Mixed(), state, (Term(goal_reached(goal)), *more))
        at = CEM(samples=400, elites=20, iterations=20).plan(cost, torch.zeros(1, 8, 2), generator()).actions.cumsum(1)
        return (at - torch.tensor([2.0, 0.0])).norm(dim=-1).min().item()

    assert nearest() < 0.7 and nearest(Term(inside(read, [160.0, 32.0], 64.0), 20.0)) > 0.95


def test_the_goal_may_be_a_picture_which_is_encoded_once() -> None:
    asked: list[int] = []

    def encode(pictures: Tensor) -> Tensor:
        asked.append(len(pictures))
        return pictures.float().mean((2, 3))[:, None, :2]

    picture = torch.full((1, 3, 8, 8), 2, dtype=torch.uint8)
    cost = LatentCost(Add(), LatentState(torch.zeros(5, 1, 2)), (Term(picture_reached(encode, picture)),))
    plan = CEM(iterations=8).plan(cost, torch.zeros(5, 3, 2), generator())
    torch.testing.assert_close(plan.actions[:, :2], torch.ones(5, 2, 2), atol=0.15, rtol=0)
    assert asked == [1]  # one picture for all five episodes


def test_a_goal_of_another_size_is_told() -> None:
    cost = goal_distance(Add(), LatentState(torch.zeros(2, 1, 2)), torch.zeros(2, 1, 3))
    with pytest.raises(ValueError, match=r"\[episodes, tokens, width\] = \[2, 1, 2\], found \[2, 1, 3\]"):
        cost(torch.zeros(2, 1, 1, 2))


def test_actions_are_held_for_as_many_steps_as_asked_for() -> None:
    control = ModelPredictiveControl(CEM(), horizon=3, execute=1, action_size=1, frames=4, hold=2)
    seen: list[int] = []

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions.shape[-1])
        assert torch.equal(actions[..., ::2], actions[..., 1::2])
        return (actions.sum((-2, -1)) - 2.0).square()

    plan = control.plan(cost, 3)
    assert plan.actions.shape == (3, 3, 4) and set(seen) == {4}
    control.plan(cost, 3)
    with pytest.raises(
        ValueError, match=r"the actions of the horizon \(6\) and those that are executed \(3\), found 2"
    ):
        ModelPredictiveControl(CEM(), horizon=6, execute=3, action_size=1, hold=2)


def test_grasp_plans_in_blocks_of_held_actions() -> None:
    cost = goal_distance(Add(), LatentState(torch.zeros(2, 1, 4)), torch.full((2, 1, 4), 2.0))
    control = ModelPredictiveControl(GRASP(), horizon=3, execute=1, action_size=1, frames=4, hold=2)
    plan = control.plan(cost, 2)
    assert plan.actions.shape == (2, 3, 4) and torch.equal(plan.actions[..., ::2], plan.actions[..., 1::2])
    torch.testing.assert_close(plan.actions.sum(1), torch.full((2, 4), 2.0), atol=0.2, rtol=0)


def test_a_run_with_another_number_of_episodes_needs_a_reset() -> None:
    control = ModelPredictiveControl(CEM(), horizon=3, execute=1, action_size=2)
    control.plan(lambda a: a.square().sum((-2, -1)), 2)
    with pytest.raises(ValueError, match="reset"):
        control.plan(lambda a: a.square().sum((-2, -1)), 3)
    control.reset()
    control.plan(lambda a: a.square().sum((-2, -1)), 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0, "execute": 0}, "the planning horizon is 0"),
        ({"horizon": 3, "execute": 4}, r"execute must lie between 1 and the horizon \(3\), found 4"),
    ],
)
def test_a_loop_that_cannot_run_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelPredictiveControl(CEM(), action_size=2, **settings)


def test_a_suggestion_of_another_width_is_refused() -> None:
    control = ModelPredictiveControl(CEM(), horizon=3, execute=1, action_size=2)
    with pytest.raises(ValueError, match=r"= \[4, 3, 2\], found \[4, 3, 3\]"):
        control.plan(lambda a: a.square().sum((-2, -1)), 4, torch.zeros(4, 3, 3))


def test_an_action_of_another_width_is_refused_by_the_dynamics() -> None:
    dynamics = MarkovPredictor(8, 4)
    with pytest.raises(ValueError, match="4 wide"):
        dynamics(torch.zeros(2, 1, 8), torch.zeros(2, 2))
