"""The masked predictor: positions, not order, say which token is which."""

import torch

from jepa.predictors.masked import MaskedPredictor

GRID = (4, 4, 4)


def predictor() -> MaskedPredictor:
    torch.manual_seed(0)
    model = MaskedPredictor(MaskedPredictor.Config(width=24, depth=2, heads=2), encoder_width=48)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    order = torch.stack([torch.randperm(64) for _ in range(2)])
    return torch.randn(2, 20, 48), order[:, :20], order[:, 20:]


@torch.no_grad()
def test_the_order_of_context_tokens_does_not_matter():
    model, (context, known, unknown) = predictor(), example()
    order = torch.randperm(20)
    straight = model(context, known, unknown, GRID)
    assert straight.shape == (2, 44, 48)
    torch.testing.assert_close(model(context[:, order], known[:, order], unknown, GRID), straight, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_order_of_targets_only_orders_the_output():
    model, (context, known, unknown) = predictor(), example()
    order = torch.randperm(44)
    shuffled = model(context, known, unknown[:, order], GRID)
    torch.testing.assert_close(shuffled, model(context, known, unknown, GRID)[:, order], atol=1e-5, rtol=0)


@torch.no_grad()
def test_predictions_differ_by_position_and_by_kind_of_mask():
    model, (context, known, unknown) = predictor(), example()
    short, long = (model(context, known, unknown, GRID, kind) for kind in (0, 1))
    assert (short - long).abs().max() > 1e-2
    assert short.std(1).mean() > 1e-2


def test_every_weight_learns_and_a_mask_kind_learns_only_when_used():
    model, (context, known, unknown) = predictor(), example()
    model(context, known, unknown, GRID, 1).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not model.mask_tokens.grad[0].any() and model.mask_tokens.grad[1].all()
