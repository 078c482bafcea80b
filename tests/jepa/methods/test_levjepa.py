"""LeVJEPA: views of one clip agree without a teacher, and do not collapse."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jepa.encoders.video_vit import VideoViT
from jepa.methods.base import Batch, ClipShape, Method
from jepa.methods.levjepa import LeVJEPA
from jepa.objectives.collapse import dimension_std

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def method(cls_token: bool = True, **settings) -> LeVJEPA:
    torch.manual_seed(0)
    attention = "block_causal" if cls_token else "bidirectional"
    encoder = VideoViT(
        VideoViT.Config(patch=8, tubelet=1, width=48, depth=2, heads=2, cls_token=cls_token, attention=attention), 32, 4
    )
    small = dict(local_views=2, drop=0.5, projector_width=64, embedding_width=16, directions=64, evaluation_ema=None)
    return LeVJEPA(LeVJEPA.Config(**(small | settings)), encoder, ClipShape(4))


def colored_noise(clips: int, seed: int = 0) -> Batch:
    """Every clip is static noise on a color of its own, which survives any crop."""
    generator = seeded(seed)
    color = 2 * torch.randn(clips, 1, 3, 1, 1, generator=generator)
    return Batch(color + 0.5 * torch.randn(clips, 4, 3, 32, 32, generator=generator), None)


def test_levjepa_is_a_method():
    assert isinstance(method(), Method)


@pytest.mark.parametrize("cls_token", [True, False])
def test_gradients_reach_every_weight(cls_token):
    model = method(cls_token)
    model.loss(colored_noise(4), seeded())["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_loss_is_agreement_plus_weighted_sigreg():
    losses = method(sigreg_weight=0.3).loss(colored_noise(4), seeded())
    torch.testing.assert_close(losses["loss"], losses["agreement"] + 0.3 * losses["sigreg"])


def test_the_cosine_of_the_views_is_1_where_all_are_mapped_to_one_vector():
    model = method()
    fresh = model.loss(colored_noise(4), seeded())["cosine"]
    torch.nn.init.zeros_(model.projector[-1].weight)
    collapsed = model.loss(colored_noise(4), seeded())["cosine"]
    assert fresh < 0.99 and collapsed.item() == pytest.approx(1) and not collapsed.requires_grad


def test_views_of_whole_frames_in_their_own_shape_agree():
    whole = {"global_scale": (1.0, 1.0), "local_scale": (1.0, 1.0), "local_size": 32, "drop": 0.0}
    moved = method(**whole).eval().loss(colored_noise(4), seeded())["agreement"]
    kept = method(**whole, aspect=(1.0, 1.0)).eval().loss(colored_noise(4), seeded())["agreement"]
    assert kept < 0.01 * moved, (kept, moved)


def test_the_generator_alone_decides_the_loss():
    model, batch = method(), colored_noise(4)
    losses = []
    for seed in (1, 1, 2):
        torch.rand(3)
        losses.append(model.loss(batch, seeded(seed))["loss"])
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


def _train(weight: float) -> tuple[list[float], float]:
    model = method(sigreg_weight=weight)
    optimizer, losses = torch.optim.AdamW(model.parameters(), 2e-3), []
    for step in range(60):
        loss = model.loss(colored_noise(16, step), seeded(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        clips = colored_noise(64, 99).video
        z = model.projector(model.encoder.forward_features(clips).cls)
    return losses, dimension_std(z).mean().item()


def test_training_reduces_the_loss_and_sigreg_prevents_collapse():
    losses, spread = _train(0.1)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    _, collapsed = _train(0.0)
    assert collapsed < 0.1 and spread > 0.5, (spread, collapsed)


def test_the_evaluation_encoder_is_the_moving_average_where_asked_for():
    model = method(evaluation_ema=0.8)
    before = [p.clone() for p in model.evaluation_encoder().parameters()]
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1.0)
    model.after_step(0, 10)
    for old, new in zip(before, model.evaluation_encoder().parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.2, rtol=1e-5, atol=1e-6)
    assert method().evaluation_encoder() is not model.evaluation_encoder()
    plain = method(evaluation_ema=None)
    assert plain.evaluation_encoder() is plain.encoder


def test_published_sizes_are_the_defaults():
    encoder = VideoViT(
        VideoViT.Config(patch=16, tubelet=1, width=24, depth=1, heads=1, cls_token=True, attention="block_causal"),
        224,
        16,
    )
    model = LeVJEPA(LeVJEPA.Config(), encoder, ClipShape(4))
    assert (model.local_size, model.config.local_views, model.drop.ratio) == (96, 10, 0.95)
    assert model.projector[0].out_features == 2048 and model.projector[3].out_features == 256


def test_dropping_tokens_saves_compute():
    def flops(drop: float) -> int:
        model, counter = method(drop=drop), FlopCounterMode(display=False)
        with counter:
            model.loss(colored_noise(2), seeded())["loss"].backward()
        return counter.get_total_flops()

    assert flops(0.9) < 0.3 * flops(0.0)


def test_impossible_settings_are_refused_in_words():
    with pytest.raises(ValueError, match=r"local_views\n.*greater than 0"):
        method(local_views=0)
