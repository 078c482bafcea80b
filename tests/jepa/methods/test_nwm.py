"""NWM: motions are composed as bodies move, and jumps are told apart."""

import math

import pytest
import torch

from jepa.encoders.conv import ConvEncoder
from jepa.methods.base import Batch, ClipShape
from jepa.methods.nwm import NWM, composed
from jepa.predictors.cdit import CDiT

pytestmark = pytest.mark.usefixtures("one_thread")
PREDICTOR = CDiT.Config(hidden=16, depth=1, heads=2, context=2)


def make(*, actions: int = 3, **settings) -> NWM:
    torch.manual_seed(0)
    encoder = ConvEncoder(ConvEncoder.Config(width=8, channels=8, hidden=16, tubelet=1), 32, 6)
    return NWM(NWM.Config(predictor=PREDICTOR, **settings), encoder, ClipShape(6, actions)).train()


def batch(actions: int = 3) -> Batch:
    g = torch.Generator().manual_seed(0)
    return Batch(torch.randn(4, 6, 3, 32, 32, generator=g), torch.rand(4, 5, actions, generator=g) * 2 - 1)


def test_four_steps_around_a_square_lead_back() -> None:
    quarter = torch.tensor([1.0, 0.0, 1.0]).expand(1, 4, 3)  # forward, then a quarter to the left
    row, start = torch.zeros(3, dtype=torch.long), torch.tensor([0, 1, 0])
    found = composed(quarter, row, start, torch.tensor([4, 3, 2]), math.pi / 2)
    expected = torch.tensor([[0.0, 0, 4], [1, 1, 2], [1, 1, 2]])  # seen from each start
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_steps_of_two_motions_are_composed_motion_by_motion() -> None:
    two = torch.tensor([1.0, 0.0, 0.5, 2.0, 0.0, 0.5]).expand(1, 2, 6)  # a quarter to the left in every step
    at = torch.zeros(1, dtype=torch.long)
    found = composed(two, at, at, at + 2, math.pi / 2)
    torch.testing.assert_close(found, torch.tensor([[1.0, 1, 1, 2, 2, 1]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [3, 6])
@pytest.mark.parametrize("turn", [None, 0.35])
def test_one_step_is_its_action_and_halves_compose_to_the_whole(turn: float | None, size: int) -> None:
    actions = torch.rand(2, 6, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    row, at = torch.arange(2).repeat_interleave(6), torch.arange(6).repeat(2)
    torch.testing.assert_close(composed(actions, row, at, at + 1, turn), actions.flatten(0, 1), atol=1e-6, rtol=1e-5)
    row, zeros = torch.arange(2), torch.zeros(2, dtype=torch.long)
    halves = torch.stack(
        (composed(actions, row, zeros, zeros + 2, turn), composed(actions, row, zeros + 2, zeros + 6, turn)), 1
    )
    whole = composed(actions, row, zeros, zeros + 6, turn)
    torch.testing.assert_close(composed(halves, row, zeros, zeros + 2, turn), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("turn", [None, 0.35])
def test_it_learns_on_a_frozen_encoder_by_the_generator_alone(turn: float | None) -> None:
    method = make(turn=turn, goals=3)
    first, again = (method.eval().loss(batch(), torch.Generator().manual_seed(1))["loss"] for _ in range(2))
    assert torch.equal(first, again)
    before = {name: value.clone() for name, value in method.encoder.state_dict().items()}
    optimizer = torch.optim.Adam((p for p in method.parameters() if p.requires_grad), 3e-3)
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        loss = method.train().loss(batch(), torch.Generator().manual_seed(step))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert all(torch.equal(value, before[name]) for name, value in method.encoder.state_dict().items())


def test_goals_lie_ahead_and_jumps_stay_within_their_limit_and_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    method, jumps = make(goals=20, max_jump=3), []
    loss = method.dynamics.denoising_loss
    z = method.encoder(batch().video)
    actions = batch().actions
    assert actions is not None

    def watched(window, target, motion, generator, ahead):
        for w, goal, moved, k in zip(window, target, motion, ahead.long().tolist(), strict=True):
            clip, t = ((z - w[-1]).abs().sum((-1, -2)) < 1e-4).nonzero()[0].tolist()
            torch.testing.assert_close(goal, z[clip, t + k])
            torch.testing.assert_close(moved, actions[clip, t : t + k].sum(0), atol=1e-5, rtol=1e-5)
            jumps.append((t, k))
        return loss(window, target, motion, generator, ahead)

    monkeypatch.setattr(method.dynamics, "denoising_loss", watched)
    for seed in range(2):
        method.loss(batch(), torch.Generator().manual_seed(seed))
    assert {k for _, k in jumps} == {1, 2, 3} and max(t + k for t, k in jumps) == 5


def test_a_motion_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method.turn: .* motions of 3 numbers .* found 2"):
        make(actions=2, turn=0.35)
