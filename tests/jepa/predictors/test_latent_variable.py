"""The latent variable carries what the past does not determine, and nothing else."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from jepa.predictors.latent_variable import Gaussian, LatentVariablePredictor
from jepa.world_model import rollout
from tests.jepa.predictors.two_futures import ACTION, WIDTH, best_of, clips, train

pytestmark = pytest.mark.usefixtures("one_thread")


def make(**settings) -> LatentVariablePredictor:
    torch.manual_seed(0)
    sizes = {"hidden": 32, "memory": 16, "variables": 2} | settings
    return LatentVariablePredictor(LatentVariablePredictor.Config(**sizes), WIDTH, ACTION)


@pytest.fixture(scope="module")
def trained() -> dict[bool, LatentVariablePredictor]:
    """In the world whose future is certain (True), and in the one whose future is one of two."""
    return {certain: train(make(), certain=certain, steps=300) for certain in (False, True)}


def test_best_of_k_falls_where_the_future_is_one_of_two_and_nowhere_else(trained) -> None:
    errors = {certain: [best_of(p, k, certain=certain) for k in (1, 4, 16)] for certain, p in trained.items()}
    one, four, sixteen = errors[False]
    assert one == pytest.approx(2, abs=0.5)  # half of the samples are 2 away
    assert sixteen < four < one and sixteen < 0.05
    assert errors[True][0] < 0.01 and errors[True][0] - errors[True][-1] < 0.01


def test_only_an_uncertain_future_needs_information(trained) -> None:
    rate = {}
    for certain, predictor in trained.items():
        terms = predictor.loss(*clips(256, 5, certain=certain, seed=7), torch.Generator().manual_seed(0)).terms
        rate[certain] = terms["rate"].item()
        assert terms["reconstruction"] < 0.02
    assert rate[True] < 0.05 < 0.5 < rate[False]  # one of two: log 2 = 0.69 nats at least


def test_without_a_limit_the_variable_copies_the_next_latent() -> None:
    z, actions = clips(256, 5, certain=True, seed=7)
    copying = train(make(rate_weight=0.0), certain=True, steps=100)
    assert copying.loss(z, actions, torch.Generator().manual_seed(0)).terms["rate"] > 1


def test_the_divergence_is_that_of_torch() -> None:
    g = torch.Generator().manual_seed(0)
    numbers = torch.randn(4, 5, 3, generator=g)
    a, b = Gaussian(numbers[0], numbers[1].exp()), Gaussian(numbers[2], numbers[3].exp())
    expected = kl_divergence(Normal(a.mean, a.std), Normal(b.mean, b.std)).sum(-1)
    torch.testing.assert_close(a.divergence(b), expected)


def test_a_kl_below_the_free_nats_is_not_reduced() -> None:
    z, actions = clips(8, 4, certain=False, seed=0)
    terms = make(free_nats=1000.0).loss(z, actions, torch.Generator().manual_seed(0)).terms
    expected = terms["reconstruction"] + 0.1 * 1000 / WIDTH
    torch.testing.assert_close(terms["prediction"], expected)


def test_the_memory_distinguishes_pasts_with_the_same_latent() -> None:
    predictor = make().eval()
    z, actions = clips(2, 4, certain=False, seed=0)
    z[1, -1] = z[0, -1]
    actions[1] = actions[0]
    state = predictor.initial_state(z, actions)
    after = rollout(predictor, state, torch.zeros(2, 1, 1, ACTION))
    assert (after[0] - after[1]).abs().max() > 1e-4


def test_more_variables_than_numbers_of_a_latent_are_refused() -> None:
    with pytest.raises(ValueError, match="variables: expected at most 2, the numbers of a latent, found 8"):
        make(variables=8)
