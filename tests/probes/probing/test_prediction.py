"""Latent prediction on worlds whose dynamics are known exactly."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from jepa.config import UserError
from jepa.predictors.base import LatentState
from jepa.world_model import Deterministic, block_actions
from jepa_probes.probing.prediction import derangement, predict_latents


class Drift:
    """z' = z + scale * (sum of the block of actions): exact for `scale` 1, blind to actions for 0."""

    context = 1
    state_size = 0

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.seen: list[tuple[int, int]] = []

    def initial_state(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S-1 A"], states: Tensor | None = None
    ) -> LatentState:
        self.seen.append((z.shape[1], actions.shape[1]))
        return LatentState(z[:, -1])

    def step(
        self, state: LatentState, action: Tensor, noise: Tensor | None = None
    ) -> tuple[LatentState, Deterministic]:
        next_latent = state.z + self.scale * action.unflatten(1, (-1, 2)).sum(1)[:, None]
        return LatentState(next_latent), Deterministic(next_latent)


def drifting(clips: int = 40, steps: int = 14) -> tuple[Tensor, Tensor]:
    """Latents [E, S, 1, 2] that move by the sum of each block, and the raw actions, two frames a step."""
    g = torch.Generator().manual_seed(0)
    actions = torch.randn(clips, 2 * steps - 1, 2, generator=g)
    moves = block_actions(actions, 2).unflatten(-1, (2, 2)).sum(2)
    start = torch.randn(clips, 1, 2, generator=g)
    return torch.cat([start, start + moves.cumsum(1)], 1)[:, :, None], actions


def test_exact_dynamics_have_no_error_and_shuffled_actions_twice_that_of_standing_still() -> None:
    z, actions = drifting()
    one, ten = predict_latents(Drift(), z, actions, 2)
    assert (one.horizon, ten.horizon, one.samples, ten.samples) == (1, 10, 40 * 13, 40 * 4)
    for score, steps in ((one, 1), (ten, 10)):
        assert score.model < 1e-8 < score.identity < score.shuffled
        # A block is the sum of two unit normal actions; wrong actions add their own variance.
        assert score.identity == pytest.approx(2 * steps, rel=0.35)
        assert score.shuffled == pytest.approx(4 * steps, rel=0.35)


def test_dynamics_that_ignore_actions_score_the_same_shuffled_and_equal_the_identity() -> None:
    z, actions = drifting()
    for score in predict_latents(Drift(0.0), z, actions, 2):
        assert score.model == score.shuffled == pytest.approx(score.identity)


def test_the_dynamics_see_the_context_they_are_given_and_its_actions() -> None:
    z, actions = drifting(steps=8)
    dynamics = Drift()
    (score,) = predict_latents(dynamics, z, actions, 2, horizons=[2], context=4)
    assert set(dynamics.seen) == {(4, 3)} and score.samples == 40 * 3 and score.model < 1e-8


def test_frames_beyond_the_last_whole_step_are_left_out() -> None:
    z, actions = drifting()
    longer = torch.cat([actions, torch.full((40, 1, 2), 1e6)], 1)
    assert predict_latents(Drift(), z, longer, 2) == predict_latents(Drift(), z, actions, 2)


def test_what_cannot_be_scored_is_refused() -> None:
    z, actions = drifting(steps=8)
    with pytest.raises(UserError, match=r"8 latent steps; predicting 10 ahead takes 11\. Use clips of 22 frames"):
        predict_latents(Drift(), z, actions, 2)
    with pytest.raises(UserError, match="at least 2, found 1"):
        predict_latents(Drift(), z[:1], actions[:1], 2)


@pytest.mark.parametrize("n", [2, 3, 50])
def test_shuffling_leaves_no_clip_its_own_actions(n: int) -> None:
    for seed in range(5):
        order = derangement(n, seed)
        assert sorted(order.tolist()) == list(range(n)) and not (order == torch.arange(n)).any()
