"""Scores of sampled futures where the right answer is known, and the dynamics that must lose."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from jepa.predictors.base import LatentState
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing
from jepa_probes.comparison.baselines import Identity, ShuffledActions
from jepa_probes.comparison.futures import next_latent_nll, sampled_futures
from jepa_probes.comparison.measure import Recorded, calls_per_step
from jepa_probes.probing.features import Features

CLIPS, STEPS, WIDTH = 200, 6, 3


@dataclass
class Spread:
    """A normal distribution around z."""

    z: Tensor
    std: float

    def mean(self) -> Tensor:
        return self.z

    def sample(self, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        return self.z if noise is None else self.z + self.std * noise

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.distributions.Normal(self.z, self.std).log_prob(z).sum((-1, -2))


class Drift(nn.Module):
    """z' = z + action + std * noise."""

    context = 1
    state_size = 0

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def initial_state(self, z: Tensor, actions: Tensor, states: Tensor | None = None) -> LatentState:
        return LatentState(z[:, -1])

    def step(
        self, state: LatentState, action: Tensor, noise: Tensor | None = None, temperature: float = 1.0
    ) -> tuple[LatentState, Spread]:
        following = Spread(state.z + action[:, None], self.std)
        return LatentState(following.sample(noise)), following


def recorded(std: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Latents [E, S, 1, D] that drift with their actions [E, S-1, D], and by chance."""
    g = torch.Generator().manual_seed(seed)
    actions = torch.randn(CLIPS, STEPS - 1, WIDTH, generator=g)
    steps = actions + std * torch.randn(actions.shape, generator=g)
    start = torch.randn(CLIPS, 1, WIDTH, generator=g)
    return torch.cat([start, start + steps.cumsum(1)], 1)[:, :, None], actions


def test_more_samples_are_no_nearer_where_the_model_predicts_one_future():
    z, actions = recorded(0.5)
    for scores in sampled_futures(Drift(0.0), z, actions, 2, (1, 3), (1, 4, 8)):
        assert scores.best_of[1] == pytest.approx(scores.best_of[8])
        still = (z[:, 1] - z[:, 1 + scores.horizon]).norm(dim=-1).mean()
        away = (z[:, 1] + actions[:, 1 : 1 + scores.horizon].sum(1)[:, None] - z[:, 1 + scores.horizon]).norm(dim=-1)
        assert scores.energy == pytest.approx((away.mean() / still).item(), rel=1e-4)


def test_the_true_distribution_has_the_lowest_energy_score_and_its_best_sample_gets_nearer():
    z, actions = recorded(0.5)
    scores = {std: sampled_futures(Drift(std), z, actions, 1, (1,), (1, 4, 16))[0] for std in (0.0, 0.5, 2.0)}
    assert scores[0.5].energy < min(scores[0.0].energy, scores[2.0].energy)
    assert scores[0.5].best_of[16] < scores[0.5].best_of[4] < scores[0.5].best_of[1]


def test_the_last_latent_again_scores_one():
    z, actions = recorded(0.5)
    for scores in sampled_futures(Identity(), z, actions, 1, (1, 5), (1, 4)):
        assert [scores.energy, *scores.best_of.values()] == pytest.approx([1, 1, 1])


def test_the_density_is_that_of_standardized_latents_whatever_their_scale():
    z, actions = recorded(0.5)
    density = next_latent_nll(Drift(0.5), z, actions, 1, torch.ones(1, WIDTH))
    assert density == pytest.approx(0.5 * math.log(2 * math.pi * math.e) + math.log(0.5), abs=0.05)
    scaled = next_latent_nll(Drift(5.0), 10 * z, 10 * actions, 1, torch.full((1, WIDTH), 10.0))
    assert scaled == pytest.approx(density, abs=1e-4)


def test_shuffled_actions_are_those_of_other_rows_at_every_step():
    dynamics = ShuffledActions(Drift(0.0))
    z = torch.zeros(7, 1, 1, WIDTH)
    actions = torch.arange(7.0)[:, None].expand(-1, WIDTH)
    state = dynamics.initial_state(z, z[:, :0, 0])
    for _ in range(3):
        state, following = dynamics.step(state, actions)
    moved = following.mean()[:, 0, 0] / 3
    assert sorted(moved.tolist()) == list(range(7)) and not (moved == torch.arange(7)).any()


def test_samples_of_a_point_prediction_are_alike_also_with_shuffled_actions():
    z, actions = recorded(0.0)
    scores = sampled_futures(ShuffledActions(Drift(0.0)), z, actions, 1, [2], [1, 8])
    assert scores[0].best_of[8] == pytest.approx(scores[0].best_of[1])


def test_planners_may_follow_the_gradient_of_the_identity():
    action = torch.ones(2, WIDTH, requires_grad=True)
    _, following = Identity().step(LatentState(torch.ones(2, 1, WIDTH)), action)
    (gradient,) = torch.autograd.grad(following.mean().sum(), action)
    assert not gradient.any() and torch.equal(following.mean(), torch.ones(2, 1, WIDTH))


class Denoised(Drift):
    """Its network runs four times for a step."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.net = nn.Linear(WIDTH, WIDTH)

    def step(self, state: LatentState, action: Tensor, noise: Tensor | None = None, temperature: float = 1.0):
        z = state.z
        for _ in range(4):
            z = self.net(z)
        return super().step(LatentState(z), action)


@pytest.mark.parametrize(("dynamics", "calls"), [(Denoised(), 4), (Identity(), 0)])
def test_function_evaluations_of_a_step_are_counted(dynamics: nn.Module, calls: int):
    z, actions = recorded(0.5)
    features = Features(z, torch.empty(CLIPS, STEPS, 0), {}, tuple(map(str, range(CLIPS))), (), actions)
    spec = LatentSpec(1, WIDTH, 0.1, 1, WIDTH)
    model = LatentWorldModel(nn.Linear(1, 1), dynamics, spec, Preprocessing(32, 10.0, (0.5,) * 3, (0.5,) * 3))
    assert calls_per_step(model, Recorded(features, features, torch.ones(1, WIDTH))) == calls
