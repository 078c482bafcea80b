"""LeWM and its parts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from jepa.encoders.conv import ConvEncoder
from jepa.methods.base import Batch, ClipShape, Method
from jepa.methods.lewm import LeWM
from jepa.predictors.causal import CausalPredictor
from jepa.predictors.gru import GRUPredictor
from jepa.predictors.hybrid import HybridPredictor
from jepa.predictors.mlp import MLPPredictor

CLIPS = ClipShape(frames=8, action_size=2)


def lewm(**settings: Any) -> LeWM:
    torch.manual_seed(0)
    settings = {"predictor": MLPPredictor.Config(hidden=32)} | settings
    return LeWM(LeWM.Config(**settings), ConvEncoder(ConvEncoder.Config(width=8, channels=8, hidden=32), 32, 4), CLIPS)


def batch() -> Batch:
    return Batch(torch.randn(6, 8, 3, 32, 32), torch.rand(6, 7, 2) * 2 - 1)


def test_it_is_a_method() -> None:
    assert isinstance(lewm(), Method)


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    method = lewm(sigreg_weight=0.5, inverse_weight=2.0, similarity_weight=0.25)
    terms = method.loss(batch(), torch.Generator().manual_seed(0))
    total = terms["prediction"] + 0.5 * terms["sigreg"] + 2 * terms["inverse_dynamics"] + 0.25 * terms["similarity"]
    torch.testing.assert_close(terms["loss"].detach(), total)


def published_sigreg(z: np.ndarray, axes: np.ndarray) -> float:
    """LeJEPA's statistic of one sample [n, D] along directions [D, K], in float64: 17 knots on [0, 3], doubled."""
    t, values = np.linspace(0, 3, 17), []
    gaussian = np.exp(-(t**2) / 2)
    for axis in axes.T / np.linalg.norm(axes, axis=0)[:, None]:
        apart = np.abs(np.exp(1j * np.outer(t, z @ axis)).mean(1) - gaussian) ** 2
        values.append(len(z) * 2 * np.trapezoid(apart * gaussian, t))
    return float(np.mean(values))


def test_sigreg_is_taken_step_by_step_as_published_and_over_all_steps_if_asked() -> None:
    clips, axes = batch(), torch.randn(8, 16, generator=torch.Generator().manual_seed(0)).double().numpy()
    found = {}
    for samples in ("per_step", "pooled"):
        method = lewm(directions=16, sigreg_samples=samples)
        found[samples] = method.loss(clips, torch.Generator().manual_seed(0))["sigreg"].item()
    z = lewm().encoder(clips.video)[:, :, 0].detach().double().numpy()  # [B, S, D]
    steps = [published_sigreg(z[:, s], axes) for s in range(z.shape[1])]
    assert found["per_step"] == pytest.approx(np.mean(steps), rel=1e-4)
    assert found["pooled"] == pytest.approx(published_sigreg(z.reshape(-1, 8), axes), rel=1e-4)
    collapsed = [lewm(directions=16, sigreg_samples=samples) for samples in found]
    for method in collapsed:
        method.encoder.head[-1].weight.data.mul_(1e-3)  # pyright: ignore
        method.encoder.head[-1].bias.data.zero_()  # pyright: ignore
    alone, together = (m.loss(clips, torch.Generator().manual_seed(0))["sigreg"].item() for m in collapsed)
    assert together == pytest.approx(4 * alone, rel=1e-3), "off the Gaussian it grows with the sample: of four steps"
    assert LeWM.Config().sigreg_samples == "per_step"


def with_static(**settings: float) -> LeWM:
    return lewm(predictor=MLPPredictor.Config(hidden=32, static=3), **settings)


def test_what_is_static_is_to_stay_as_it_is() -> None:
    data, gradients, terms = batch(), [], {}
    for weight in (0.0, 3.0):
        method = with_static(static_weight=weight)
        terms = method.loss(data, torch.Generator().manual_seed(0))
        terms["loss"].backward()
        last = method.encoder.head[-1]
        assert isinstance(last, torch.nn.Linear) and last.weight.grad is not None
        gradients.append(last.weight.grad)
    more = gradients[1] - gradients[0]
    assert more[5:].abs().max() > 0.01 > 1e-4 > more[:5].abs().max(), "the weight is that of the last three numbers"
    total = terms["prediction"] + 0.02 * terms["sigreg"] + terms["inverse_dynamics"] + 0.5 * terms["similarity"]
    torch.testing.assert_close(terms["loss"].detach(), total + 3 * terms["static"])


def test_dynamics_with_a_static_part_leave_it_alone_and_read_it() -> None:
    dynamics = with_static().dynamics
    z, actions = torch.randn(6, 1, 8), torch.randn(6, 4)
    next_latent = dynamics(z, actions)
    assert torch.equal(next_latent[..., 5:], z[..., 5:]) and not torch.isclose(next_latent, z)[..., :5].any()
    other = torch.cat([z[..., :5], z[..., 5:] + 1], -1)
    assert not torch.isclose(dynamics(other, actions), next_latent)[..., :5].any()
    with pytest.raises(ValueError, match="fewer than the 8 numbers of a latent, found 8"):
        MLPPredictor(MLPPredictor.Config(static=8), 8, 4)


def test_the_cosine_is_that_of_prediction_and_target() -> None:
    method, data = lewm(), batch()
    dynamics = method.dynamics
    assert isinstance(dynamics, MLPPredictor)
    torch.nn.init.zeros_(dynamics.leave.weight)
    torch.nn.init.zeros_(dynamics.leave.bias)  # it predicts that nothing changes
    z = method.encoder(data.video)
    expected = torch.nn.functional.cosine_similarity(z[:, :1], z[:, 1:], dim=-1).mean()
    cosine = method.loss(data, torch.Generator().manual_seed(0))["cosine"]
    assert cosine < 0.9 and not cosine.requires_grad
    torch.testing.assert_close(cosine, expected.detach())


@pytest.mark.parametrize("make", [lewm, with_static])
def test_every_parameter_is_trained(make: Callable[[], LeWM]) -> None:
    method = make()
    method.loss(batch(), torch.Generator().manual_seed(0))["loss"].backward()
    assert [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_all_randomness_comes_from_the_generator() -> None:
    method, data = lewm(), batch()
    losses = [method.loss(data, torch.Generator().manual_seed(seed))["loss"].item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_the_last_action_changes_the_last_prediction_only() -> None:
    dynamics = lewm().dynamics
    assert isinstance(dynamics, MLPPredictor)
    z, action = torch.randn(1, 1, 8), torch.randn(1, 4)
    assert not torch.equal(dynamics(z, action), dynamics(z, -action))


def test_clips_without_actions_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="vjepa or levjepa"):
        lewm().loss(Batch(torch.randn(2, 4, 3, 32, 32), None), torch.Generator())


@pytest.mark.parametrize("shape", [(1, 3, 3, 32, 32), (1, 4, 3, 48, 32)])
def test_the_encoder_names_the_size_it_expects(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected a multiple of 2 frames of 32x32"):
        lewm().encoder(torch.zeros(shape))


def test_the_latents_of_a_batch_have_zero_mean_and_unit_variance() -> None:
    z = lewm().encoder(batch().video).flatten(0, 2)
    torch.testing.assert_close(z.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(8), atol=1e-2, rtol=0)


HYBRID = {"pattern": "M*-", "hidden": 24, "heads": 4, "mamba_heads": 3, "mamba_head_dim": 8, "mamba_state": 8}
CAUSAL = {"hidden": 24, "depth": 1, "heads": 2, "conditioning": "adaln"}


@pytest.mark.parametrize(
    "predictor",
    [
        MLPPredictor.Config(hidden=32),
        GRUPredictor.Config(),
        CausalPredictor.Config(**CAUSAL),
        HybridPredictor.Config(**HYBRID),
    ],
    ids=["mlp", "gru", "causal", "hybrid"],
)
def test_teacher_forced_steps_read_the_true_latents_and_the_first_is_that_of_the_open_loop(predictor) -> None:
    method = lewm(predictor=predictor, teacher_forced=True)
    dynamics = method.dynamics
    with torch.no_grad():
        for parameter in dynamics.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    terms = method.loss(batch(), torch.Generator().manual_seed(0))
    terms["loss"].backward()
    assert [name for name, p in dynamics.named_parameters() if p.grad is None or not p.grad.any()] == []

    z, actions = torch.randn(3, 4, 1, 8), torch.randn(3, 3, 4)
    with torch.no_grad():
        forced = dynamics.parallel(z[:, :-1], actions)
        for seen in range(1, 4):
            _, next_latent = dynamics.step(
                dynamics.initial_state(z[:, :seen], actions[:, : seen - 1]), actions[:, seen - 1]
            )
            torch.testing.assert_close(forced[:, seen - 1], next_latent.mean(), atol=1e-5, rtol=1e-5)
