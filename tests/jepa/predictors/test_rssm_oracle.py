"""The RSSM equals torchrl's DreamerV3 modules on the same random weights, in fp32."""

import warnings

import pytest
import torch
from torch import nn

from jepa.objectives import two_hot
from jepa.predictors.rssm import RSSM, kl_terms, probabilities

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torchrl's own, while it is imported
    torchrl_modules = pytest.importorskip("torchrl.modules", exc_type=ImportError)
    model_based = pytest.importorskip("torchrl.modules.models.model_based", exc_type=ImportError)
    torchrl_objectives = pytest.importorskip("torchrl.objectives", exc_type=ImportError)

WIDTH, ACTION, BATCH = 10, 3, 7
SIZES = {"recurrent_size": 24, "hidden": 16, "blocks": 4, "categoricals": 5, "classes": 6}


def ours() -> RSSM:
    torch.manual_seed(0)
    return randomized(RSSM(RSSM.Config(**SIZES, normalize_actions=False), WIDTH, ACTION))


def randomized(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def copy_in_order(source: list[nn.Module], target: nn.Module) -> None:
    """The weights of one, parameter by parameter, into the other, whose modules stand in the same order."""
    parameters = [p for module in source for p in module.parameters()]
    others = list(target.parameters())
    assert [p.shape for p in parameters] == [p.shape for p in others]
    with torch.no_grad():
        for parameter, other in zip(parameters, others, strict=True):
            other.copy_(parameter)


def prior_of(model: RSSM) -> nn.Module:
    prior = torchrl_modules.RSSMPriorV3(
        action_shape=torch.Size([ACTION]),
        action_dim=ACTION,
        hidden_dim=SIZES["hidden"],
        rnn_hidden_dim=SIZES["recurrent_size"],
        num_categoricals=SIZES["categoricals"],
        num_classes=SIZES["classes"],
        recurrent_model="block_gru",
        num_blocks=SIZES["blocks"],
        unimix=0.01,
    )
    copy_in_order([model.core, model.prior_net], prior)
    return prior


def state() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    h = torch.randn(BATCH, SIZES["recurrent_size"], generator=g)
    s = torch.randn(BATCH, SIZES["categoricals"], SIZES["classes"], generator=g)
    return h, s, 2 * torch.randn(BATCH, ACTION, generator=g)  # some actions are larger than 1


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_core_and_the_prior_are_those_of_torchrl() -> None:
    model, (h, s, action) = ours(), state()
    logits, _, belief = prior_of(model)(s.flatten(1), h, action)
    moved = model.advance(h, s, model.embedded_action(action))
    close(moved, belief)
    close(model.prior(moved), logits)


def test_gradients_of_the_core_are_those_of_torchrl() -> None:
    model, (h, s, action) = ours(), state()
    theirs = prior_of(model)
    model.advance(h, s, model.embedded_action(action)).square().sum().backward()
    theirs(s.flatten(1), h, action)[2].square().sum().backward()
    for parameter, other in zip(model.core.parameters(), theirs.rnn.parameters(), strict=True):
        assert parameter.grad is not None and other.grad is not None
        torch.testing.assert_close(parameter.grad, other.grad, atol=1e-4, rtol=1e-4)


def test_the_posterior_is_that_of_torchrl() -> None:
    model, (h, _, _) = ours(), state()
    posterior = torchrl_modules.RSSMPosteriorV3(
        hidden_dim=SIZES["hidden"],
        num_categoricals=SIZES["categoricals"],
        num_classes=SIZES["classes"],
        rnn_hidden_dim=SIZES["recurrent_size"],
        obs_embed_dim=WIDTH,
        use_rms_norm=True,
        unimix=0.01,
    )
    copy_in_order([model.posterior_net], posterior)
    z = torch.randn(BATCH, 1, WIDTH)
    close(model.posterior(h, z), posterior(h, z[:, 0])[0])


@pytest.mark.parametrize("free_nats", [0.0, 1.0, 4.0])
def test_the_kl_terms_are_those_of_torchrl(free_nats: float) -> None:
    q, p = torch.randn(2, 8, 5, 6)
    for ours, theirs in zip(
        kl_terms(q, p, free_nats), torchrl_objectives.categorical_kl_terms(q, p, free_nats), strict=True
    ):
        close(ours, theirs)


def test_the_mixed_probabilities_are_those_that_torchrl_samples_from() -> None:
    logits = torch.randn(3, 5, 6)
    close(probabilities(logits), model_based._unimix_probs(logits, 0.01))


def test_two_hot_codes_are_those_of_torchrl() -> None:
    bins = two_hot.symexp_bins()
    x = torch.randn(64) * torch.logspace(-2, 4, 64)
    close(two_hot.encode(x, bins), model_based.two_hot_encode(x, bins))
    logits = torch.randn(9, len(bins))
    ours, theirs = two_hot.decode(logits, bins), model_based.two_hot_decode(logits, bins)
    torch.testing.assert_close(ours, theirs, atol=1e-5 * bins[-1].item(), rtol=1e-4)
