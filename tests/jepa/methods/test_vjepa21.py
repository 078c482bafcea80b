"""V-JEPA 2.1: dense loss, several levels, images beside videos."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jepa.encoders.video_vit import VideoViT
from jepa.masks.base import Mask, Partition
from jepa.masks.random_drop import RandomDrop
from jepa.methods.base import Batch, ClipShape
from jepa.methods.vjepa import VJEPA, Dense
from jepa.objectives.latent_regression import distance_weights, latent_regression, normalized
from jepa.predictors.masked import MaskedPredictor
from jepa.transformer import Grid, grid_positions

pytestmark = pytest.mark.usefixtures("one_thread")
DENSE = Dense(weight=0.5, start=4, end=8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def method(*, dense: Dense | None = DENSE, images: bool = True, **settings) -> VJEPA:
    torch.manual_seed(0)
    encoder = VideoViT(
        VideoViT.Config(
            patch=8, tubelet=2, width=48, depth=4, heads=2, levels=(0, 1, 2, 3), images=images, position_grid=16
        ),
        32,
        8,
    )
    predictor = MaskedPredictor.Config(width=24, depth=2, heads=2)
    return VJEPA(VJEPA.Config(predictor=predictor, dense=dense, **settings), encoder, ClipShape(8))


def clips(count: int, is_image: tuple[int, ...] = (), seed: int = 0) -> Batch:
    coarse = torch.randn(
        count, 3, 4, 4, 4, generator=seeded(seed)
    )  # smooth in space and time: there is a way to predict
    video = F.interpolate(coarse, (8, 32, 32), mode="trilinear").transpose(1, 2).contiguous()
    flags = torch.zeros(count, dtype=torch.bool)
    flags[list(is_image)] = True
    video[flags] = video[flags][:, :1]
    return Batch(video, None, flags)


def test_context_tokens_weigh_by_the_root_of_their_distance_to_the_nearest_hidden_one():
    grid = (3, 4, 5)
    seen, hidden = RandomDrop(RandomDrop.Config(ratio=0.2))(grid, 2, seeded())
    weights = distance_weights(grid_positions(seen, grid), grid_positions(hidden, grid))

    def place(token: int) -> tuple[int, int, int]:
        return token // 20, token % 20 // 5, token % 5

    for row in range(2):
        for column, token in enumerate(seen[row].tolist()):
            distances = [
                sum((a - b) ** 2 for a, b in zip(place(token), place(other), strict=True)) ** 0.5
                for other in hidden[row].tolist()
            ]
            assert weights[row, column].item() == pytest.approx(min(distances) ** -0.5, rel=1e-5)
    assert weights.max() == 1


def test_weights_weigh_tokens():
    prediction, target = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    weights = torch.rand(2, 3)
    by_hand = ((prediction - target).abs().mean(-1) * weights).sum() / 6
    torch.testing.assert_close(latent_regression(prediction, target, weights), by_hand)
    torch.testing.assert_close(
        latent_regression(prediction, target, torch.ones(2, 3)), latent_regression(prediction, target)
    )


def test_the_dense_loss_begins_late_grows_and_stays():
    model, found = method(), []
    for step in range(12):
        found.append(model.loss(clips(2), seeded())["dense_weight"].item())
        model.after_step(step + 1, 12)
    assert found == pytest.approx([0, 0, 0, 0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5, 0.5])


def test_the_step_of_the_dense_loss_survives_a_checkpoint():
    model, other = method(), method()
    model.after_step(6, 12)
    other.load_state_dict(model.state_dict())
    assert other.loss(clips(2), seeded())["dense_weight"].item() == pytest.approx(0.375)


def test_the_loss_is_that_of_hidden_tokens_and_lambda_times_that_of_visible_ones():
    model = method(ema=(1.0, 1.0))
    model.after_step(100, 200)
    with_dense = model.loss(clips(2), seeded())
    model.config = model.config.model_copy(update={"dense": DENSE.model_copy(update={"weight": 0.0})})
    without = model.loss(clips(2), seeded())
    torch.testing.assert_close(with_dense["dense"], without["dense"])
    torch.testing.assert_close(with_dense["loss"], without["loss"] + 0.5 * with_dense["dense"])


def test_the_context_head_learns_only_with_the_dense_loss():
    model = method()
    model.loss(clips(2), seeded())["loss"].backward()
    head = model.predictor.predictor_proj_context
    assert head is not None and not head.weight.grad.any()  # lambda is 0 at the start
    model.after_step(100, 200)
    model.loss(clips(2), seeded())["loss"].backward()
    assert head.weight.grad.any()


@torch.no_grad()
def test_every_level_of_the_target_is_normalized_by_itself():
    model, batch = method(), clips(2)
    for size, norm in enumerate(model.target_encoder.norms, start=1):
        norm.weight.mul_(size)
    levels = model.target_encoder.forward_features(batch.video).levels.split(48, -1)
    expected = torch.cat([F.layer_norm(level, (48,)) for level in levels], -1)
    torch.testing.assert_close(model._targets(batch.video), expected)
    assert not torch.allclose(expected, normalized(torch.cat(levels, -1)), atol=1e-2)


def test_stills_pass_as_one_frame_and_count_by_their_share(monkeypatch: pytest.MonkeyPatch):
    def alike(mask: Mask, video: Tensor, grid: Grid, *_: object) -> Partition:
        """The same mask for all clips."""
        context, target = mask(grid, 1, seeded())
        return context.expand(len(video), -1), target.expand(len(video), -1)

    monkeypatch.setattr(Mask, "of", alike)
    model = method(ema=(1.0, 1.0))
    both = clips(4, is_image=(1,))
    loss = model.loss(both, seeded())["loss"]
    alone = [Batch(both.video[[i]], None, torch.tensor([i == 1])) for i in range(4)]
    each = torch.stack([model.loss(one, seeded())["loss"] for one in alone])
    torch.testing.assert_close(loss, each.mean())
    other = both.video.clone()
    other[1, 1:] = 7.0  # what follows the first frame of a still is never looked at
    torch.testing.assert_close(model.loss(replace(both, video=other), seeded())["loss"], loss)


def test_images_train_their_own_embedding_and_marks():
    model = method()
    model.loss(clips(3, is_image=(0, 1, 2)), seeded())["loss"].backward()
    encoder, predictor = model.encoder, model.predictor
    assert encoder.patch_embed_image.proj.weight.grad.any() and encoder.patch_embed.proj.weight.grad is None
    assert predictor.image_token.grad.any() and predictor.video_token.grad is None
    model.zero_grad()
    model.loss(clips(3), seeded())["loss"].backward()
    assert encoder.patch_embed.proj.weight.grad.any() and predictor.video_token.grad.any()


def test_stills_are_clips_to_an_encoder_without_images():
    model = method(images=False)
    flagged, plain = clips(3, is_image=(0,)), clips(3, is_image=(0,))
    plain = replace(plain, is_image=None)
    assert torch.equal(model.loss(flagged, seeded())["loss"], model.loss(plain, seeded())["loss"])


def test_a_few_steps_reduce_the_loss():
    model, losses = method(dense=Dense(weight=0.5, start=0, end=0), ema=(0.99, 0.99)), []
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    for step in range(30):
        loss = model.loss(clips(6, is_image=(0, 1), seed=step), seeded(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step(step + 1, 30)
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(start=5, end=2), "start <= end"),
        (
            lambda: MaskedPredictor(MaskedPredictor.Config(width=24, depth=1, heads=2), 48).forward_dense(*indices()),
            "no context head",
        ),
    ],
)
def test_impossible_settings_are_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def indices() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, int, int]]:
    seen, hidden = RandomDrop(RandomDrop.Config(ratio=0.5))((2, 2, 2), 1, seeded())
    return torch.zeros(1, 4, 48), seen, hidden, (2, 2, 2)
