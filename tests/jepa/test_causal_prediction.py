"""Teacher forcing and rollouts: the loss of V-JEPA 2-AC and DINO-WM against loops written by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jepa.objectives.causal_prediction import Predict, apart, forced_and_rolled, rolled_out
from jepa.predictors.causal import CausalPredictor

B, S, N, D, A = 2, 6, 4, 8, 3


def predictor() -> CausalPredictor:
    torch.manual_seed(0)
    return CausalPredictor(CausalPredictor.Config(hidden=24, depth=2, heads=2), D, A, grid=(2, 2))


def clips() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(B, S, N, D, generator=g), torch.randn(B, S - 1, A, generator=g)


def along(model: CausalPredictor, actions: Tensor) -> Predict:
    return lambda seen: model(seen, actions[:, : seen.shape[1]])


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize(("steps", "context"), [(2, 1), (3, 1), (2, 4), (5, 1)])
def test_the_loss_equals_a_loop_written_by_hand(distance, steps: int, context: int) -> None:
    model = predictor()
    x, actions = clips()
    terms, forced = forced_and_rolled(along(model, actions), x, distance=distance, rollout_steps=steps, context=context)
    measure = F.l1_loss if distance == "l1" else F.mse_loss
    expected = 0.0
    for s in range(S - 1):  # every latent from the truth before it, one at a time
        state = model.initial_state(x[:, : s + 1], actions[:, :s])
        next_latent = model.step(state, actions[:, s])[1].mean()
        torch.testing.assert_close(forced[:, s], next_latent, atol=1e-5, rtol=1e-5)
        expected += measure(next_latent, x[:, s + 1]).item() / (S - 1)
    assert terms["forced"].item() == pytest.approx(expected, rel=1e-4)
    state, expected = model.initial_state(x[:, :context], actions[:, : context - 1]), 0.0
    for n in range(steps):
        state, ahead = model.step(state, actions[:, context - 1 + n])
        expected += measure(ahead.mean(), x[:, context + n]).item() / steps
    assert terms["rollout"].item() == pytest.approx(expected, rel=1e-4)


def test_detached_inputs_stop_the_gradient_and_others_do_not() -> None:
    """Of the second prediction with respect to the weights that embed latents, against two passes by hand."""

    def gradient(detach: bool, by_hand: bool) -> Tensor:
        model = predictor()
        x, actions = clips()
        predict = along(model, actions)
        if by_hand:
            first = predict(x[:, :1])
            last = predict(torch.cat([x[:, :1], first.detach() if detach else first], 1))[:, -1]
        else:
            last = rolled_out(predict, x, predict(x[:, :-1]), 2, 1, detach)[:, -1]
        last.square().sum().backward()
        assert model.predictor_embed.weight.grad is not None
        return model.predictor_embed.weight.grad

    through, patchify = (gradient(detach, by_hand=False) for detach in (False, True))
    torch.testing.assert_close(through, gradient(False, by_hand=True))
    torch.testing.assert_close(patchify, gradient(True, by_hand=True))
    assert (through - patchify).abs().max() > 1e-4


def test_no_gradient_passes_a_detached_input_at_all() -> None:
    """A predictor that reads its last latent alone: detached, nothing of the first step is left in the second."""
    weight = torch.full((), 2.0, requires_grad=True)
    x = torch.ones(1, 4, 1, 1)

    def predict(seen: Tensor) -> Tensor:
        return weight * seen

    for detach, gradient in ((False, 12.0), (True, 4.0)):  # w³ x, and w (w² x) with the bracket constant
        weight.grad = None
        rolled = rolled_out(predict, x, predict(x[:, :-1]), 3, 1, detach)
        assert rolled.flatten().tolist() == [2.0, 4.0, 8.0]
        rolled[:, -1].sum().backward()
        assert weight.grad is not None and weight.grad.item() == gradient


def test_targets_are_constant_and_no_rollout_is_no_term() -> None:
    x, actions = clips()
    x.requires_grad_()
    terms, _ = forced_and_rolled(along(predictor(), actions), x, distance="l2", rollout_steps=0)
    assert set(terms) == {"forced"}
    terms["forced"].backward()
    assert x.grad is not None and not x.grad[:, -1].any(), "the last latent is a target only"
    assert x.grad[:, 0].abs().max() > 0


def test_distances_are_taken_in_full_precision() -> None:
    a, b = torch.full((4, 300), 1.0, dtype=torch.bfloat16), torch.full((4, 300), 1.01)
    assert apart(a, b, "l2").dtype == torch.float32
    assert apart(a, b, "l1").item() == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(
    ("steps", "context", "needed"), [(6, 1, 7), (3, 4, 7), (2, 0, 3), (2, 6, 8)], ids=["long", "late", "none", "after"]
)
def test_a_rollout_that_leaves_the_clip_is_refused(steps: int, context: int, needed: int) -> None:
    x, actions = clips()
    with pytest.raises(ValueError, match=rf"takes clips of {needed} latent steps, found 6: make the clips longer"):
        forced_and_rolled(along(predictor(), actions), x, distance="l1", rollout_steps=steps, context=context)


def test_a_clip_of_one_latent_has_nothing_to_predict() -> None:
    x, actions = clips()
    with pytest.raises(ValueError, match="expected 2 latent steps or more, found 1"):
        forced_and_rolled(along(predictor(), actions), x[:, :1], distance="l1", rollout_steps=0)
