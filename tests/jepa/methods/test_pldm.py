"""PLDM and VICReg's terms."""

import pytest
import torch

from jepa.encoders.conv import ConvEncoder
from jepa.methods.base import Batch, ClipShape, Method
from jepa.methods.pldm import PLDM
from jepa.objectives.vicreg import covariance, variance

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = {"variance": 3.0, "covariance": 6.92, "time_variance": 0.245, "similarity": 0.742, "inverse": 1.07}


def pldm(**settings: float) -> PLDM:
    torch.manual_seed(0)
    config = PLDM.Config.model_validate({"predictor": {"kind": "gru"}, **settings})
    return PLDM(
        config,
        ConvEncoder(ConvEncoder.Config(width=8, channels=8, hidden=32), 32, 4),
        ClipShape(frames=8, action_size=2),
    )


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randn(6, 8, 3, 32, 32, generator=generator), torch.rand(6, 7, 2, generator=generator) * 2 - 1)


def test_the_variance_is_the_mean_shortfall_of_the_standard_deviations() -> None:
    z = torch.randn(500, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = (z - z.mean(0)) / z.std(0) * torch.tensor([0.25, 0.5, 1.0, 3.0])
    expected = ((1 - 0.25) + (1 - 0.5) + 0 + 0) / 4
    assert variance(z).item() == pytest.approx(expected, abs=2e-4)


def test_the_covariance_is_that_of_torch_without_its_diagonal() -> None:
    z = torch.randn(3, 50, 6, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    expected = 0.0
    for view in z:
        matrix = torch.cov(view.T)
        expected += ((matrix - matrix.diag().diag()).square().sum() / 6 / len(z)).item()
    assert covariance(z).item() == pytest.approx(expected, rel=1e-5)


def test_descending_both_terms_spreads_a_collapsed_cloud_in_all_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    line = torch.randn(256, 1, generator=generator) @ torch.ones(1, 6)  # one dimension, six times
    z = (line + 0.01 * torch.randn(256, 6, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([z], 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (variance(z) + covariance(z)).backward()
        optimizer.step()
    values = torch.linalg.eigvalsh(torch.cov(z.detach().T))
    assert values.min() > 0.8 and values.max() < 1.6


@pytest.mark.parametrize("term", [variance, covariance])
def test_one_embedding_has_no_variance(term) -> None:
    with pytest.raises(ValueError, match="at least 2 embeddings, found 1"):
        term(torch.zeros(1, 4))


def test_it_is_a_method() -> None:
    assert isinstance(pldm(), Method)


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    terms = pldm(**{f"{name}_weight": weight for name, weight in WEIGHTS.items()}).loss(batch(), torch.Generator())
    names = {"inverse": "inverse_dynamics"}
    total = terms["prediction"] + sum(weight * terms[names.get(name, name)] for name, weight in WEIGHTS.items())
    torch.testing.assert_close(terms["loss"].detach(), total)


def test_every_parameter_is_trained() -> None:
    method = pldm()
    method.loss(batch(), torch.Generator())["loss"].backward()
    assert [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_terms_over_clips_and_over_time_look_along_their_own_axis() -> None:
    method, data = pldm(), batch()
    still = Batch(data.video[:, :1].expand_as(data.video), data.actions)
    alike = Batch(data.video[:1].expand_as(data.video), data.actions)
    in_time, in_clips = (method.loss(x, torch.Generator()) for x in (still, alike))
    assert in_time["time_variance"].item() == pytest.approx(0.99, abs=1e-3)
    assert in_clips["variance"].item() == pytest.approx(0.99, abs=1e-3)
    assert in_time["variance"] < 0.9 and in_clips["time_variance"] < 0.9


def test_clips_without_actions_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="vjepa or levjepa"):
        pldm().loss(Batch(torch.randn(2, 4, 3, 32, 32), None), torch.Generator())
