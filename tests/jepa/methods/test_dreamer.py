"""DreamerV3's world model: encoder, RSSM, decoder and heads, trained end to end."""

from typing import Any

import pytest
import torch

from jepa.encoders.dreamer_conv import DreamerConv
from jepa.methods.base import Batch, ClipShape
from jepa.methods.dreamer import Dreamer
from jepa.objectives import two_hot
from jepa.predictors.rssm import RSSM, kl_terms

pytestmark = pytest.mark.usefixtures("one_thread")
CLIPS = ClipShape(frames=6, action_size=2)
SMALL = RSSM.Config(recurrent_size=16, hidden=16, blocks=4, categoricals=4, classes=4, normalize_actions=False)


def dreamer(**settings: Any) -> Dreamer:
    torch.manual_seed(0)
    encoder = DreamerConv(DreamerConv.Config(channels=(4, 8)), 16, 6)
    return Dreamer(Dreamer.Config(predictor=SMALL, decoder_channels=8, **settings), encoder, CLIPS)


def batch(first: torch.Tensor | None = None) -> Batch:
    g = torch.Generator().manual_seed(0)
    video = torch.randn(4, 6, 3, 16, 16, generator=g)
    targets = torch.stack([video.mean((2, 3, 4)) * 50, torch.zeros(4, 6)], -1)
    targets[:, 0, 0] = torch.nan  # nothing led to the first frame
    targets[0, -1, 1] = 1
    return Batch(video, torch.rand(4, 5, 2, generator=g) * 2 - 1, targets=targets, first=first)


def gradients(method: Dreamer, term: torch.Tensor) -> dict[str, float]:
    method.zero_grad()
    term.backward()
    return {name: 0.0 if p.grad is None else p.grad.abs().sum().item() for name, p in method.named_parameters()}


@pytest.mark.parametrize("reconstruct", ["pixels", "embedding"])
def test_all_parts_learn_together(reconstruct: str) -> None:
    method = dreamer(reconstruct=reconstruct)
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        terms = method.loss(batch(), torch.Generator().manual_seed(step))
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms)
    assert losses[-1]["loss"] < 0.8 * losses[0]["loss"]
    assert losses[-1]["reward"] < 0.8 * losses[0]["reward"]
    unused = [name for name, p in method.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert unused == []


def test_with_a_decoder_the_emission_trains_itself_alone() -> None:
    method = dreamer()
    z = method.encoder(batch().video)
    seen = method.dynamics.observe(z, batch().actions)
    _, error = method.emission_error(z.detach(), seen.h.detach(), seen.prior.detach(), torch.Generator())
    reached = {name for name, size in gradients(method, error).items() if size}
    assert reached and all(name.startswith("dynamics.emission.") for name in reached)


def test_without_a_decoder_the_next_embedding_trains_encoder_core_and_prior() -> None:
    method = dreamer(reconstruct="embedding", predict="nothing", sigreg_weight=0.0)
    assert method.decoder is None
    loss = method.loss(batch(), torch.Generator().manual_seed(0))
    reached = gradients(method, loss["loss"])
    for part in ("encoder.", "dynamics.core.", "dynamics.prior_net.", "dynamics.posterior_net."):
        assert sum(size for name, size in reached.items() if name.startswith(part)) > 0, part


def test_rewards_that_are_missing_do_not_count() -> None:
    method = dreamer()
    features = torch.randn(4, 6, method.dynamics.feature_size)
    clips = batch()
    assert clips.targets is not None
    errors = method.outcomes(features, clips)
    known = clips.targets[:, 1:, 0]
    logits = method.reward_net(features[:, 1:])
    torch.testing.assert_close(errors["reward"], two_hot.cross_entropy(logits, known, method.bins).mean())


def test_untrained_rewards_are_exactly_zero() -> None:
    method = dreamer()
    assert (method.reward(torch.randn(7, method.dynamics.feature_size)) == 0).all()


def test_a_reset_inside_a_clip_is_a_fresh_start_for_every_loss() -> None:
    method = dreamer(predict="nothing").eval()
    clips = batch()
    assert clips.actions is not None
    first = torch.zeros(4, 6, dtype=torch.bool)
    first[:, 3] = True
    z = method.encoder(clips.video)
    whole = method.dynamics.observe(z, clips.actions, first=first)
    later = method.dynamics.observe(z[:, 3:], clips.actions[:, 3:])
    torch.testing.assert_close(whole.h[:, 3:], later.h)
    torch.testing.assert_close(whole.posterior[:, 3:], later.posterior)
    other = Batch(clips.video, clips.actions.clone().index_fill_(1, torch.tensor([2]), 9.0), first=first)
    cut = Batch(clips.video, clips.actions, first=first)
    losses = [method.loss(each, torch.Generator().manual_seed(1))["loss"] for each in (cut, other)]
    torch.testing.assert_close(*losses)


def test_a_posterior_like_the_prior_costs_one_nat_each_and_has_no_gradient() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    dynamics, representation = kl_terms(logits, logits, SMALL.free_nats)
    assert dynamics == representation == 1
    (dynamics + representation).backward()
    assert logits.grad is not None and (logits.grad == 0).all()


def test_all_randomness_comes_from_the_generator() -> None:
    method = dreamer(reconstruct="embedding").eval()
    losses = []
    for seed in (1, 1):
        torch.manual_seed(len(losses))
        losses.append(method.loss(batch(), torch.Generator().manual_seed(seed))["loss"].item())
    assert losses[0] == losses[1]
