"""V-JEPA: what gets gradients, how the teacher moves, what a step costs, and what happens without a teacher."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jepa.encoders.video_vit import VideoViT
from jepa.masks.multiblock import MultiBlock
from jepa.masks.random_drop import RandomDrop
from jepa.methods.base import Batch, ClipShape, Method
from jepa.methods.vjepa import VJEPA
from jepa.objectives.collapse import effective_rank
from jepa.predictors.masked import MaskedPredictor

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def method(depth: int = 2, **settings) -> VJEPA:
    torch.manual_seed(0)
    encoder = VideoViT(VideoViT.Config(patch=8, tubelet=2, width=48, depth=depth, heads=2), image_size=32, frames=8)
    predictor = MaskedPredictor.Config(width=24, depth=1, heads=2)
    return VJEPA(VJEPA.Config(predictor=predictor, **settings), encoder, ClipShape(8))


def moving_squares(clips: int, seed: int = 0) -> Batch:
    """A bright square that slides over a dark background, each clip with its own start and velocity."""
    generator = seeded(seed)
    start, speed = torch.rand(clips, 2, generator=generator) * 24, torch.randn(clips, 2, generator=generator)
    corner = (start[:, None] + torch.arange(8)[:, None] * speed[:, None]) % 28
    pixels = torch.arange(32)
    keep_out = [(pixels >= corner[..., a, None]) & (pixels < corner[..., a, None] + 6) for a in (0, 1)]
    square = (keep_out[0][..., :, None] & keep_out[1][..., None, :]).float()
    return Batch(4 * square[:, :, None].expand(-1, -1, 3, -1, -1) - 0.2, None)


def train(model: VJEPA, steps: int, rate: float = 1e-3) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate)
    losses = []
    for step in range(steps):
        loss = model.loss(moving_squares(8, step), seeded(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step(step, steps)
        losses.append(loss.item())
    return losses


def test_vjepa_is_a_method():
    assert isinstance(method(), Method)


def test_gradients_reach_encoder_and_predictor_and_never_the_teacher():
    model = method()
    model.loss(moving_squares(2), seeded())["loss"].backward()
    assert all(p.grad is not None for p in [*model.encoder.parameters(), *model.predictor.parameters()])
    assert all(p.grad is None and not p.requires_grad for p in model.target_encoder.parameters())


def test_the_teacher_moves_by_the_formula():
    model = method(ema=(0.9, 1.0))
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    for step, momentum in ((0, 0.9), (5, 0.95), (10, 1.0)):
        before = [p.clone() for p in model.target_encoder.parameters()]
        model.after_step(step, 10)
        for old, new, own in zip(before, model.target_encoder.parameters(), model.encoder.parameters(), strict=True):
            torch.testing.assert_close(new, momentum * old + (1 - momentum) * own, rtol=1e-5, atol=1e-6)


def test_the_teacher_is_saved_with_the_method_and_is_what_gets_evaluated():
    model, other = method(), method()
    train(model, 3)
    other.load_state_dict(model.state_dict())
    video = moving_squares(2).video
    assert torch.equal(other.evaluation_encoder()(video), model.evaluation_encoder()(video))
    assert not torch.equal(model.evaluation_encoder()(video), model.encoder(video))
    chosen = method(evaluate="context")
    assert chosen.evaluation_encoder() is chosen.encoder and chosen.target_encoder is not None


def test_the_generator_alone_decides_the_loss():
    model, batch = method(), moving_squares(4)
    losses = []
    for seed in (1, 1, 2):
        torch.rand(3)  # the global generator must not matter
        losses.append(model.loss(batch, seeded(seed))["loss"])
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


def test_a_few_steps_reduce_the_loss():
    losses = train(method(ema=(0.99, 0.99)), 40)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.slow
def test_without_teacher_and_regularizer_it_collapses_and_the_rank_shows_it():
    monitors = {}
    for teacher in ("none", "ema"):
        model = method(teacher=teacher)
        train(model, 50, rate=2e-2)
        with torch.no_grad():
            latents = model.evaluation_encoder()(moving_squares(32, 99).video).flatten(0, 2)
        latents = latents[torch.randperm(len(latents), generator=seeded())[:256]]
        monitors[teacher] = effective_rank(latents).item()
    assert monitors["none"] < 4 and monitors["none"] < monitors["ema"] / 3, monitors


def test_a_masked_step_costs_less_than_an_unmasked_one():
    def flops(masks) -> int:
        model, counter = method(depth=4, masks=tuple(masks)), FlopCounterMode(display=False)
        with counter:
            model.loss(moving_squares(2), seeded())["loss"].backward()
        return counter.get_total_flops()

    full = flops([RandomDrop.Config(ratio=0.02)])
    assert flops([MultiBlock.Config(blocks=8, scale=0.15)]) < 0.75 * full
    assert flops([MultiBlock.Config(blocks=2, scale=0.7)]) < 0.65 * full


def test_impossible_settings_are_refused_in_words():
    with pytest.raises(ValueError, match="less than or equal to 1"):
        method(ema=(0.9, 1.1))


def test_targets_by_channel_leave_nothing_to_gain_by_a_constant():
    losses = {}
    for norm in ("token", "channel"):
        model = method(target_norm=norm)
        truth = model._targets(moving_squares(16).video)
        losses[norm] = (truth - truth.mean((0, 1))).abs().mean() / truth.abs().mean()
    assert losses["token"] < 0.5, "most of a fresh encoder's tokens is common to all of them"
    assert losses["channel"] > 0.99


def test_levels_are_normalized_by_channel_too():
    torch.manual_seed(0)
    settings = VideoViT.Config(patch=8, tubelet=2, width=48, depth=2, heads=2, levels=(0, 1))
    encoder = VideoViT(settings, image_size=32, frames=8)
    predictor = MaskedPredictor.Config(width=24, depth=1, heads=2)
    model = VJEPA(VJEPA.Config(predictor=predictor, target_norm="channel"), encoder, ClipShape(8))
    truth = model._targets(moving_squares(4).video)
    assert truth.shape == (4, 64, 96)
    torch.testing.assert_close(truth.std((0, 1), correction=0), torch.ones(96), atol=0.05, rtol=0)
