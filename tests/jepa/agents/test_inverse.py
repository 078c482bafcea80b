"""Acting by inverse dynamics: what it learns, and plans that start from it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa.agents.config import InverseSettings
from jepa.agents.controller import ActionSpace
from jepa.agents.inverse import expectile, fit_inverse
from jepa.planners.mpc import ModelPredictiveControl
from jepa.planners.random_shooting import RandomShooting

pytestmark = pytest.mark.usefixtures("one_thread")
SPACE = ActionSpace(2, frames=2, action_repeat=2)
SHOOTING = RandomShooting(RandomShooting.Config(samples=4))
SMALL = InverseSettings(updates=600, batch=128, hidden=64)


def walks(count: int = 300, steps: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points that go 0.2 times the action, each action done twice: latents [V, S, 1, 2], blocks [V, S-1, 4]."""
    generator = torch.Generator().manual_seed(seed)
    drift = torch.rand(count, 1, 2, generator=generator) * 2 - 1
    actions = (drift + 0.3 * torch.randn(count, steps - 1, 2, generator=generator)).clamp(-1, 1)
    start = torch.rand(count, 1, 2, generator=generator) * 2 - 1
    z = torch.cat([start, start + (2 * 0.2 * actions).cumsum(1)], 1)
    return z[:, :, None], actions.repeat(1, 1, 2)


def test_it_walks_to_goals_it_was_never_shown() -> None:
    z, blocks = walks()
    actor = fit_inverse(z, z, blocks, SPACE, SMALL)
    here = torch.zeros(50, 1, 2)
    goal = torch.rand(50, 1, 2, generator=torch.Generator().manual_seed(9)) * 2 - 1
    for _ in range(12):
        block = actor.act(here, goal)
        assert torch.equal(block[:, :2], block[:, 2:]), "held twice"
        here = here + 0.2 * (block[:, None, :2] + block[:, None, 2:])
    assert (here - goal).norm(dim=-1).max() < 0.2 < goal.norm(dim=-1).mean()


def test_the_goals_that_are_shown_are_those_that_count() -> None:
    z, blocks = walks()
    actor = fit_inverse(z, -z, blocks, SPACE, SMALL)  # goal images that show everything turned round
    here, goal = torch.zeros(1, 1, 2), torch.tensor([[[0.8, 0.0]]])
    assert actor.act(here, goal)[0, 0] < -0.2 and actor.act(here, -goal)[0, 0] > 0.2


def dawdlers(count: int = 400, steps: int = 8) -> tuple[Tensor, Tensor]:
    """Points of a line that go 0.2 times the action, some way or the other, with a step back now and then."""
    generator = torch.Generator().manual_seed(0)
    way = torch.randint(2, (count, 1, 1), generator=generator) * 2.0 - 1
    actions = way * (0.6 + 0.4 * torch.rand(count, steps - 1, 1, generator=generator))
    actions = torch.where(torch.rand(actions.shape, generator=generator) < 0.25, -actions, actions)
    start = torch.rand(count, 1, 1, generator=generator) * 2 - 1
    z = torch.cat([start, start + 0.2 * actions.cumsum(1)], 1)
    return z[:, :, None], actions


@pytest.mark.slow
def test_in_haste_it_does_as_those_did_who_were_there_soon() -> None:
    z, actions = dawdlers()
    here, goal = torch.zeros(1, 1, 1), torch.tensor([[[0.5]]])
    longer = SMALL.model_copy(update={"updates": 1200})
    speeds = [
        fit_inverse(z, z, actions, ActionSpace(1), longer.model_copy(update={"time_penalty": time_penalty}))
        .act(here, goal)
        .item()
        for time_penalty in (0.0, 1.0)
    ]
    assert speeds[0] + 0.08 < speeds[1] < 1.0


def test_the_fewest_steps_are_a_low_expectile_of_those_taken() -> None:
    taken = torch.arange(1.0, 101)
    guess = torch.full((1,), 50.0, requires_grad=True)
    optimizer = torch.optim.Adam([guess], 1.0)
    for _ in range(400):
        optimizer.zero_grad()
        expectile(taken - guess, 0.2).backward()
        optimizer.step()
    late = taken - guess.detach()
    torch.testing.assert_close(0.2 * late.clamp_min(0).sum(), 0.8 * -late.clamp_max(0).sum(), rtol=0.02, atol=0)


def test_goals_lie_no_further_ahead_than_is_said() -> None:
    z, blocks = walks(50)
    far = z.clone()
    far[:, 3:] = torch.nan  # never a goal of the first three moments, if goals are one step ahead
    near = SMALL.model_copy(update={"updates": 20, "ahead": 1})
    clean, spoiled = (fit_inverse(x[:, :3], x[:, :3], blocks[:, :2], SPACE, near) for x in (z, far))
    assert torch.equal(clean.network[-1].weight, spoiled.network[-1].weight)
    goals = z.clone()
    goals[:, 2:] = torch.nan
    with_all = fit_inverse(z[:, :3], goals[:, :3], blocks[:, :2], SPACE, near.model_copy(update={"ahead": None}))
    assert torch.isnan(with_all.network[-1].weight).any()


def test_the_same_seed_gives_the_same_controller() -> None:
    z, blocks = walks(20)
    few = InverseSettings(updates=5, batch=8, hidden=8)
    weights = [
        torch.cat([p.flatten() for p in fit_inverse(z, z, blocks, SPACE, few, seed).parameters()]) for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("native", [False, True])
def test_it_is_fitted_in_bf16_where_that_is_native_if_it_may_choose(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa.agents.inverse.multiplies_bf16", lambda device: native)
    z, blocks = walks(20)
    fitted = {
        bf16: fit_inverse(z, z, blocks, SPACE, InverseSettings(updates=5, batch=8, hidden=8, bf16=bf16)).state_dict()
        for bf16 in (False, True, "auto")
    }
    different = [k for k in fitted[True] if not torch.equal(fitted[True][k], fitted[False][k])]
    assert different and all(torch.equal(fitted["auto"][k], fitted[native][k]) for k in fitted["auto"])


@pytest.mark.parametrize(
    ("steps", "width", "message"),
    [
        (1, 4, "two latent steps at least, found 1"),
        (3, 6, r"actions \[5, 2, 4\], found \[5, 3, 1, 2\] and \[5, 2, 6\]"),
    ],
)
def test_clips_that_do_not_fit_are_refused(steps: int, width: int, message: str) -> None:
    z = torch.zeros(5, steps, 1, 2)
    with pytest.raises(ValueError, match=message):
        fit_inverse(z, z, torch.zeros(5, steps - 1, width), SPACE, SMALL)


def test_decisions_and_blocks_are_each_others_inverse() -> None:
    decisions = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    space = ActionSpace(2, frames=6, action_repeat=3)
    torch.testing.assert_close(space.decisions(space.block(decisions)), decisions)
    control = ModelPredictiveControl(SHOOTING, horizon=3, replan_every=1, action_size=2, frames=2, action_repeat=2)
    plan = torch.rand(5, 3, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(control.decisions(control.blocks(plan)), plan)


def test_in_a_ball_no_action_is_longer_than_one_and_shorter_ones_are_left_alone() -> None:
    control = ModelPredictiveControl(
        SHOOTING, horizon=2, replan_every=1, action_size=2, frames=2, action_repeat=2, bounds="ball"
    )
    blocks = control.blocks(torch.tensor([[[1.0, -1.0], [0.3, 0.4]]]))
    half = 0.5**0.5
    torch.testing.assert_close(blocks, torch.tensor([[[half, -half, half, -half], [0.3, 0.4, 0.3, 0.4]]]))


@pytest.mark.parametrize(("keep", "suggest"), [(True, False), (False, False), (True, True)])
def test_a_plan_starts_from_what_is_suggested_else_from_the_last_one_if_that_is_kept(keep: bool, suggest: bool) -> None:
    starts: list[np.ndarray] = []

    class Spy(RandomShooting):
        def plan(self, cost, start, generator):
            starts.append(start.numpy().copy())
            return super().plan(cost, start, generator)

    control = ModelPredictiveControl(Spy(Spy.Config(samples=8)), horizon=3, replan_every=1, action_size=2, keep=keep)
    suggested = torch.full((1, 3, 2), 0.25) if suggest else None
    plans = [control.plan(lambda actions: actions.square().sum((-2, -1)), 1, suggested) for _ in range(2)]
    if suggest:
        assert (starts[1] == 0.25).all()
    elif keep:
        assert np.array_equal(starts[1][0, :2], plans[0].actions[0, 1:].numpy()) and not starts[1][0, 2].any()
    else:
        assert not starts[1].any()
