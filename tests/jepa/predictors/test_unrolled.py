"""Unrolled dynamics step in a state of their own, and learn from every latent of a clip."""

import pytest
import torch

from jepa.predictors.unrolled import UnrolledPredictor
from jepa.world_model import rollout

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTH, ACTION, STEPS = 6, 2, 5


def make() -> UnrolledPredictor:
    torch.manual_seed(0)
    config = UnrolledPredictor.Config(state=16, hidden=32, enter=32, leave=16, normalize_actions=False)
    return UnrolledPredictor(config, WIDTH, ACTION)


def turning(batch: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three copies of a point on a circle, which the first action turns."""
    g = torch.Generator().manual_seed(seed)
    actions = torch.randn(batch, STEPS, ACTION, generator=g)
    start = 6.3 * torch.rand(batch, 1, generator=g)
    angle = torch.cat((start, start + actions[..., 0].cumsum(1)), 1)
    return torch.stack((angle.sin(), angle.cos()), -1).repeat(1, 1, 3)[:, :, None], actions


def test_the_loss_is_that_of_what_planners_imagine_from_the_first_latent() -> None:
    predictor = make()
    z, actions = turning(4, 0)
    found = predictor.loss(z, actions, torch.Generator())
    imagined = rollout(predictor, predictor.initial_state(z[:, :1], actions[:, :0]), actions[:, None])[:, 0]
    torch.testing.assert_close(found.predicted, imagined)
    now = predictor.read(predictor.enter(z[:, 0].flatten(1)))[:, None]
    expected = (torch.cat((now, imagined), 1) - z).square().mean()
    torch.testing.assert_close(found.terms["prediction"], expected)


def test_no_gradient_reaches_the_targets() -> None:
    z, actions = turning(4, 0)
    z.requires_grad_()
    make().loss(z, actions, torch.Generator()).terms["prediction"].backward()
    assert z.grad is not None and z.grad[:, 0].abs().sum() > 0 and z.grad[:, 1:].abs().sum() == 0


def test_it_learns_to_turn() -> None:
    predictor = make()
    optimizer = torch.optim.Adam(predictor.parameters(), 3e-3)
    z, actions = turning(512, 1)
    for _ in range(150):
        loss = predictor.loss(z, actions, torch.Generator()).terms["prediction"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z, actions = turning(256, 2)
    error = (predictor.loss(z, actions, torch.Generator()).predicted[:, -1] - z[:, -1]).square().mean()
    nothing = (z[:, 0] - z[:, -1]).square().mean()
    assert error < 0.3 * nothing, (error, nothing)
