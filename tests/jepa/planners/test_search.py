"""Search that finds where one Gaussian about "do nothing" does not: round a wall, in one of many valleys, in time."""

import pytest
import torch
from torch import Tensor

from jepa.agents.proposals import RecordedSegments
from jepa.planners.cem import CEM
from jepa.planners.cost import LatentCost, goal_distance
from jepa.planners.hybrid import Hybrid
from jepa.planners.mixture import Mixture
from jepa.planners.mpc import ModelPredictiveControl
from jepa.predictors.base import LatentState
from jepa.world_model import Deterministic
from jepa_data.actions import ActionStats
from tests.jepa.planners.toy_planning import Add, generator

pytestmark = pytest.mark.usefixtures("one_thread")
STEP = 0.25
HORIZON = 16


class Walled(Add):
    """A point that moves by STEP times the action; a wall at x = 0, from y = -1 to 1, stops it."""

    def step(self, state: LatentState, action: Tensor, noise=None) -> tuple[LatentState, Deterministic]:
        there = state.z + STEP * action[:, None]
        crosses = (state.z[..., 0] < 0) != (there[..., 0] < 0)
        blocked = crosses & (there[..., 1].abs() < 1)
        z = torch.where(blocked[..., None], state.z, there)
        return LatentState(z), Deterministic(z)


def walled(batch: int) -> LatentCost:
    """From one side of the wall to the other."""
    start = torch.tensor([-0.5, 0.0]).expand(batch, 1, 2)
    return goal_distance(Walled(), LatentState(start), -start, running_cost_weight=0.0)


def wandered(clips: int, steps: int) -> tuple[Tensor, Tensor]:
    """Latents [V, S, 1, 2] and actions [V, S-1, 2] of points that walk straight ahead for six steps at a time."""
    state = LatentState(3 * torch.rand(clips, 1, 2, generator=generator()) - 1.5)
    actions = 2 * torch.rand(clips, steps // 6, 2, generator=generator()) - 1
    actions = (actions / actions.abs().amax(-1, keepdim=True)).repeat_interleave(6, 1)
    latents = [state.z]
    for t in range(steps):
        state, _ = Walled().step(state, actions[:, t])
        latents.append(state.z)
    return torch.stack(latents, 1), actions


def controlled(planner: CEM | Mixture, **changes) -> ModelPredictiveControl:
    settings = {"horizon": HORIZON, "replan_every": 1, "action_size": 2} | changes
    return ModelPredictiveControl(planner, **settings)


@pytest.mark.parametrize("kind", ["cem", "mixture"])
def test_recorded_segments_lead_round_a_wall_that_a_gaussian_runs_into(kind: str) -> None:
    budget = {"samples": 100, "elites": 10, "iterations": 6}
    gaussian = CEM(CEM.Config(**budget))
    planner = {"cem": gaussian, "mixture": Mixture(Mixture.Config(**budget))}[kind]
    cost = walled(8)
    without = controlled(gaussian).plan(cost, 8).cost
    assert (without > 0.1).float().mean() > 0.8, "it ends in front of the wall"
    latents, actions = wandered(3000, 18)
    segments = RecordedSegments(latents, latents, actions)
    start = cost.state.z
    proposals = segments.propose(start, -start, HORIZON, 50)
    assert proposals.shape == (8, 50, HORIZON, 2)
    assert (controlled(planner).plan(cost, 8, proposals=proposals).cost < 0.02).all(), "it goes round"


def test_several_elites_find_the_deeper_valley_that_starts_out_worse() -> None:
    def cost(actions: Tensor) -> Tensor:  # a valley 0.2 deep at -0.6, and a steeper one down to 0 at 0.6
        shallow, steep = (actions + 0.6).square().mean((-2, -1)), (actions - 0.6).square().mean((-2, -1))
        return torch.minimum(0.2 + shallow, 20 * steep)

    starts = torch.tensor([-0.5, 0.75]).view(1, 2, 1, 1).expand(4, 2, 5, 1)
    assert (cost(starts)[:, 0] < cost(starts)[:, 1]).all()
    budget = {"samples": 100, "elites": 10, "iterations": 8, "std": 0.1, "min_std": 0.01}
    shallow = CEM(CEM.Config(**budget)).plan_from(cost, starts, generator())
    deep = Mixture(Mixture.Config(**budget)).plan_from(cost, starts, generator())
    assert deep.evaluations < shallow.evaluations
    assert (shallow.cost > 0.199).all() and (deep.cost < 0.02).all()


def test_segments_are_the_nearest_of_different_clips_and_then_stand_still() -> None:
    latents = torch.arange(5.0).view(1, 5, 1, 1) + torch.tensor([0.0, 0.1, 10.0]).view(3, 1, 1, 1)
    blocks = torch.arange(1.0, 13.0).view(3, 4, 1)
    segments = RecordedSegments(latents, latents, blocks)
    z, goal = torch.tensor([[[1.0]], [[12.0]]]), torch.tensor([[[3.0]], [[13.0]]])
    proposals = segments.propose(z, goal, 3, 2)[..., 0]
    torch.testing.assert_close(proposals[0], torch.tensor([[2.0, 3, 0], [6, 7, 0]]))
    torch.testing.assert_close(proposals[1, 0], torch.tensor([11.0, 0, 0]))
    assert segments.propose(z, goal, 9, 50).shape == (2, 3, 9, 1), "there are three clips, each four actions long"
    with pytest.raises(ValueError, match="segments need clips of two latent steps at least, found 1"):
        RecordedSegments(latents[:, :1], latents[:, :1], blocks[:, :0])
    with pytest.raises(ValueError, match=r"expected goals \[3, 5, 1, 1\] and actions \[3, 4\], found \[3, 4, 1, 1\]"):
        RecordedSegments(latents, latents[:, 1:], blocks)


def test_planners_start_from_the_cheapest_of_several_starts_and_count_all() -> None:
    starts = torch.tensor([0.9, -0.4, 0.3]).view(1, 3, 1, 1).expand(2, 3, 2, 1)
    cost = lambda actions: (actions - 0.31).square().mean((-2, -1))  # noqa: E731
    for planner in (CEM(CEM.Config(samples=2, elites=2, iterations=1)), Hybrid(Hybrid.Config())):
        plan = planner.plan_from(cost, starts, generator())
        assert (plan.cost <= 1.0001e-4).all()
        assert plan.evaluations == 3 + planner.plan(cost, starts[:, 2], generator()).evaluations


def test_standing_still_is_a_candidate_where_it_is_not_the_middle_of_the_range() -> None:
    tried = []

    class Noting(Mixture):
        def plan_from(self, cost, starts, generator):
            tried.append(starts)
            return super().plan_from(cost, starts, generator)

    stats = ActionStats(low=(-1.0,), high=(3.0,), mean=(1.0,), std=(1.0,))
    settings = {"horizon": 2, "action_size": 1, "actions": stats}
    control = controlled(Noting(Mixture.Config(samples=4, elites=2, iterations=1)), **settings)
    plan = control.plan(lambda blocks: blocks.square().sum((-2, -1)), 3)
    torch.testing.assert_close(tried[0][:, 1], torch.full((3, 2, 1), -0.5))
    torch.testing.assert_close(plan.actions, torch.zeros(3, 2, 1))


def test_no_plan_is_longer_than_what_is_left_of_the_episode() -> None:
    planner = CEM(CEM.Config(samples=20, elites=4, iterations=2))
    settings = {"horizon": 6, "frames": 2, "action_repeat": 4, "replan_every": 2, "action_size": 1}
    budgets = (100, 12, 11, 8, 7, 4, 3, 1)
    assert [controlled(planner, **settings, budget=b).next_horizon() for b in budgets] == [6, 6, 6, 4, 4, 2, 2, 2]
    control = controlled(planner, **settings, budget=15)
    cost = lambda blocks: blocks.square().sum((-2, -1))  # noqa: E731
    lengths = [control.plan(cost, 3).actions.shape[1] for _ in range(5)]
    assert lengths == [6, 6, 4, 2, 2], "four actions later, shorter than the rest of the last plan"
    with pytest.raises(ValueError, match=r"expected a suggestion .* = \[3, 2, 2\], found \[3, 6, 2\]"):
        control.plan(cost, 3, proposals=torch.zeros(3, 5, 6, 2))
    control.reset()
    assert control.next_horizon() == 6


def test_elites_are_not_imagined_twice() -> None:
    seen = []

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions)
        return actions.square().mean((-2, -1))

    config = Mixture.Config(samples=20, elites=4, iterations=3)
    plan = Mixture(config).plan(cost, torch.full((1, 3, 2), 0.5), generator())
    rows = torch.cat(seen, 1).flatten(0, 1).flatten(1)
    assert plan.evaluations == len(rows) == 60 and len(rows.unique(dim=0)) == 60
    assert cost(plan.actions[:, None]).item() == pytest.approx(plan.cost.item())
