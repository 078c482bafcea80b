"""What plans cost, and planning again and again: terms, forbidden regions, images, held actions."""

import pytest
import torch
from torch import Tensor

from jepa.decoders.state import LinearRead
from jepa.planners.cem import CEM
from jepa.planners.cost import LatentCost, Term, action_cost, goal_distance, goal_reached, keep_out, state_reached
from jepa.planners.grasp import GRASP
from jepa.planners.mpc import ModelPredictiveControl
from jepa.predictors.base import LatentState
from tests.jepa.planners.toy_planning import Add, generator

pytestmark = pytest.mark.usefixtures("one_thread")


def test_planning_again_from_the_rest_of_the_last_plan_reaches_a_goal_that_one_plan_cannot() -> None:
    z, goal, control = torch.zeros(5, 1, 2), torch.full((5, 1, 2), 3.0), None
    control = ModelPredictiveControl(CEM(CEM.Config(iterations=6)), horizon=3, replan_every=1, action_size=2)
    for _ in range(6):
        state = LatentState(z)
        plan = control.plan(goal_distance(Add(), state, goal), len(z))
        z = z + plan.actions[:, :1]
    torch.testing.assert_close(z, goal, atol=0.1, rtol=0)


def test_the_path_weight_makes_the_agent_hurry() -> None:
    goal, state = torch.ones(1, 1, 1), LatentState(torch.zeros(1, 1, 1))
    early, late = torch.tensor([[[[1.0], [0.0]], [[0.0], [1.0]]]]).unbind(1)
    at_end, along = (goal_distance(Add(), state, goal, running_cost_weight=w) for w in (0.0, 1.0))
    assert at_end(early[:, None]) == at_end(late[:, None])
    assert along(early[:, None]) < along(late[:, None])


def test_terms_of_a_cost_add_up() -> None:
    state, actions = LatentState(torch.zeros(2, 1, 2)), torch.full((2, 3, 4, 2), 0.5)
    goal = torch.ones(2, 1, 2)

    def position(z: Tensor) -> Tensor:
        return z[..., 0, :]

    alone = {
        "goal": goal_reached(goal, running_cost_weight=0.0),
        "action_cost": action_cost(),
        "state": state_reached(position, torch.zeros(2, 2)),
        "keep_out": keep_out(position, [2.0, 2.0], 1.0),
    }
    found = {name: LatentCost(Add(), state, (Term(term),))(actions)[0, 0].item() for name, term in alone.items()}
    # The steps lie at 0.5, 1.0, 1.5 and 2.0; the forbidden ball reaches from 1.29 to 2.71 along the diagonal.
    assert found == pytest.approx(
        {"goal": 1.0, "action_cost": 0.25, "state": 4.0, "keep_out": (1 + 1 - 0.5 * 2**0.5) / 4}
    )
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
        plan = CEM(CEM.Config(samples=400, elites=20, iterations=20)).plan(cost, torch.zeros(1, 8, 2), generator())
        at = plan.actions.cumsum(1)
        return (at - torch.tensor([2.0, 0.0])).norm(dim=-1).min().item(), (at[:, -1] - goal[:, 0]).norm().item()

    through, _ = depth(Term(goal_reached(goal)))
    around, left = depth(Term(goal_reached(goal)), Term(keep_out(position, [2.0, 0.0], 1.0), 20.0))
    assert through < 0.7 and around > 0.95 and left < 0.3


def test_a_forbidden_region_is_reported_in_states_that_are_read_off_the_latents() -> None:
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
        plan = CEM(CEM.Config(samples=400, elites=20, iterations=20)).plan(cost, torch.zeros(1, 8, 2), generator())
        at = plan.actions.cumsum(1)
        return (at - torch.tensor([2.0, 0.0])).norm(dim=-1).min().item()

    assert nearest() < 0.7 and nearest(Term(keep_out(read, [160.0, 32.0], 64.0), 20.0)) > 0.95


def test_all_episodes_may_have_one_goal() -> None:
    cost = LatentCost(Add(), LatentState(torch.zeros(5, 1, 2)), (Term(goal_reached(torch.full((1, 1, 2), 2.0))),))
    plan = CEM(CEM.Config(iterations=8)).plan(cost, torch.zeros(5, 3, 2), generator())
    torch.testing.assert_close(plan.actions[:, :2], torch.ones(5, 2, 2), atol=0.15, rtol=0)


def test_a_goal_of_another_size_is_reported() -> None:
    cost = goal_distance(Add(), LatentState(torch.zeros(2, 1, 2)), torch.zeros(2, 1, 3))
    with pytest.raises(ValueError, match=r"\[episodes, tokens, width\] = \[2, 1, 2\], found \[2, 1, 3\]"):
        cost(torch.zeros(2, 1, 1, 2))


def test_actions_are_held_for_as_many_steps_as_asked_for() -> None:
    control = ModelPredictiveControl(
        CEM(CEM.Config()), horizon=3, replan_every=1, action_size=1, frames=4, action_repeat=2
    )
    seen: list[int] = []

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions.shape[-1])
        assert torch.equal(actions[..., ::2], actions[..., 1::2])
        return (actions.sum((-2, -1)) - 2.0).square()

    plan = control.plan(cost, 3)
    assert plan.actions.shape == (3, 3, 4) and set(seen) == {4}
    control.plan(cost, 3)
    with pytest.raises(ValueError, match=r"the actions of the horizon \(6\) and those of replan_every \(3\), found 2"):
        ModelPredictiveControl(CEM(CEM.Config()), horizon=6, replan_every=3, action_size=1, action_repeat=2)


def test_grasp_plans_in_blocks_of_held_actions() -> None:
    cost = goal_distance(Add(), LatentState(torch.zeros(2, 1, 4)), torch.full((2, 1, 4), 2.0))
    control = ModelPredictiveControl(
        GRASP(GRASP.Config()), horizon=3, replan_every=1, action_size=1, frames=4, action_repeat=2
    )
    plan = control.plan(cost, 2)
    assert plan.actions.shape == (2, 3, 4) and torch.equal(plan.actions[..., ::2], plan.actions[..., 1::2])
    torch.testing.assert_close(plan.actions.sum(1), torch.full((2, 4), 2.0), atol=0.2, rtol=0)


def test_a_run_with_another_number_of_episodes_needs_a_reset() -> None:
    control = ModelPredictiveControl(CEM(CEM.Config()), horizon=3, replan_every=1, action_size=2)
    control.plan(lambda a: a.square().sum((-2, -1)), 2)
    with pytest.raises(ValueError, match="reset"):
        control.plan(lambda a: a.square().sum((-2, -1)), 3)
    control.reset()
    control.plan(lambda a: a.square().sum((-2, -1)), 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0, "replan_every": 0}, "the planning horizon is 0"),
        ({"horizon": 3, "replan_every": 4}, r"replan_every must lie between 1 and the horizon \(3\), found 4"),
    ],
)
def test_a_loop_that_cannot_run_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelPredictiveControl(CEM(CEM.Config()), action_size=2, **settings)


def test_a_suggestion_of_another_width_is_refused() -> None:
    control = ModelPredictiveControl(CEM(CEM.Config()), horizon=3, replan_every=1, action_size=2)
    with pytest.raises(ValueError, match=r"= \[4, 3, 2\], found \[4, 3, 3\]"):
        control.plan(lambda a: a.square().sum((-2, -1)), 4, torch.zeros(4, 3, 3))
