"""VideoViT and its rotary positions: what depends on what, and what is computed."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jepa.encoders.video_vit import VideoViT
from jepa.transformer import grid_positions, rotary_table, rotate


def encoder(**changes) -> VideoViT:
    torch.manual_seed(0)
    settings = dict(image_size=32, patch=8, tubelet=2, width=48, depth=2, heads=2, frames=8)
    model = VideoViT(**(settings | changes))
    with torch.no_grad():  # weights large enough that attention is far from uniform
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_a_score_depends_on_the_offset_of_two_tokens_only():
    query, key = torch.randn(2, 1, 1, 64)
    offset = torch.tensor([2.0, 3.0, 1.0])
    at = torch.tensor([[0.0, 0, 0], [5, 2, 9], [31, 15, 0], [7, 23, 40]])

    def turned(x, positions):
        return rotate(x.expand(1, len(positions), -1), rotary_table(positions[None], 64))

    scores = (turned(query, at) * turned(key, at + offset)).sum(-1)
    assert (scores - scores[0, 0]).abs().max() < 1e-5
    other = (turned(query, at) * turned(key, at + offset.flip(0))).sum(-1)
    assert (other - scores).abs().min() > 1e-3


def test_each_axis_turns_its_own_channels_and_the_rest_stand_still():
    x = torch.ones(1, 1, 64)
    for axis, channels in enumerate((slice(0, 20), slice(20, 40), slice(40, 60))):
        position = torch.zeros(1, 1, 3)
        position[..., axis] = 3
        moved = (rotate(x, rotary_table(position, 64)) - x)[0, 0].abs() > 1e-4
        assert (
            moved[channels].any() and not moved[[i for i in range(64) if not channels.start <= i < channels.stop]].any()
        )


def test_the_rotary_table_stays_fp32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        table = rotary_table(grid_positions(torch.arange(4096)[None], (16, 16, 16)), 64)
        turned = rotate(torch.ones(1, 4096, 64, dtype=torch.bfloat16), table)
    assert table.dtype == torch.complex64 and turned.dtype == torch.bfloat16


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, dict(cls_token=True, attention="block_causal"), dict(tubelet=1)])
def test_keeping_all_tokens_equals_the_full_pass(settings):
    model = encoder(**settings)
    video = torch.randn(2, 8, 3, 32, 32)
    full = model(video)
    assert full.shape == (2, 8 // model.tubelet, 16, 48) and model.tokens == 16
    everything = torch.arange(full.shape[1] * 16).expand(2, -1)
    torch.testing.assert_close(model(video, everything), full.flatten(1, 2), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_order_of_kept_tokens_only_orders_the_output():
    model, video = encoder(cls_token=True, attention="block_causal"), torch.randn(2, 8, 3, 32, 32)
    keep = torch.stack([torch.randperm(64)[:20] for _ in range(2)])
    order = torch.randperm(20)
    straight, shuffled = model.forward_features(video, keep), model.forward_features(video, keep[:, order])
    torch.testing.assert_close(shuffled.tokens, straight.tokens[:, order], atol=1e-5, rtol=0)
    torch.testing.assert_close(shuffled.cls, straight.cls, atol=1e-5, rtol=0)


@torch.no_grad()
def test_dropped_tokens_are_not_read():
    model, video = encoder(), torch.randn(2, 8, 3, 32, 32)
    keep = torch.tensor([[0, 5, 17, 40], [3, 21, 22, 63]])
    kept = model(video, keep)
    selected = model(video).flatten(1, 2).take_along_dim(keep[..., None], 1)
    assert (kept - selected).abs().max() > 1e-3  # attention saw fewer tokens

    changed = video.clone()
    changed[:, 6:, :, 24:, :8] = 9.0  # row 3, column 0 of step 3: token 60 is kept in neither clip
    assert torch.equal(model(changed, keep), kept)


@torch.no_grad()
def test_block_causal_tokens_never_see_the_future_and_cls_sees_it_all():
    model, video = encoder(cls_token=True, attention="block_causal"), torch.randn(2, 8, 3, 32, 32)
    changed = video.clone()
    changed[:, 4:] = torch.randn_like(changed[:, 4:])
    before, after = model.forward_features(video), model.forward_features(changed)
    assert torch.equal(before.tokens[:, :32], after.tokens[:, :32])
    assert (before.tokens[:, 32:] - after.tokens[:, 32:]).abs().amax(-1).min() > 1e-3
    assert (before.cls - after.cls).abs().max() > 1e-3


@torch.no_grad()
def test_no_patch_reads_cls():
    model, video = encoder(cls_token=True, attention="block_causal"), torch.randn(1, 8, 3, 32, 32)
    before = model.forward_features(video)
    model.cls_token.add_(1.0)
    after = model.forward_features(video)
    assert torch.equal(before.tokens, after.tokens) and not torch.equal(before.cls, after.cls)


@torch.no_grad()
@pytest.mark.parametrize(("frames", "height", "width"), [(2, 32, 32), (16, 16, 16), (4, 24, 56)])
def test_any_clip_that_tubelet_and_patch_divide_is_encoded(frames, height, width):
    assert encoder()(torch.randn(1, frames, 3, height, width)).shape == (1, frames // 2, height * width // 64, 48)


@torch.no_grad()
def test_the_patch_embedding_is_the_published_convolution():
    model, video = encoder(), torch.randn(2, 8, 3, 32, 32)
    convolved = model.patch_embed.proj(video.transpose(1, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.patch_embed(video, None), convolved, atol=1e-5, rtol=1e-4)


def test_clips_that_do_not_divide_are_refused_in_words():
    with pytest.raises(ValueError, match="7 frames do not divide into tubelets of 2"):
        encoder()(torch.randn(1, 7, 3, 32, 32))
    with pytest.raises(ValueError, match="32x30 pixels do not divide into patches of 8"):
        encoder()(torch.randn(1, 8, 3, 32, 30))
    with pytest.raises(ValueError, match="width 48 does not divide into 5 heads"):
        encoder(heads=5)
    with pytest.raises(ValueError, match="even head width of at least 6"):
        encoder(heads=12)(torch.randn(1, 8, 3, 32, 32))


@pytest.mark.parametrize("kept", [64, 16])
def test_a_forward_pass_costs_what_the_docstring_says(kept):
    model, video = encoder(), torch.randn(3, 8, 3, 32, 32)
    with torch.device("meta"):
        model, video, keep = model.to("meta"), video.to("meta"), torch.zeros(3, kept, dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(video, keep)
    width, depth, ratio = 48, 2, 4
    formula = kept * (2 * width * 3 * 2 * 64 + depth * (8 * width**2 + 4 * width**2 * ratio + 4 * kept * width))
    assert counter.get_total_flops() == pytest.approx(3 * formula, rel=1e-6)


def test_weights_start_as_published():
    torch.manual_seed(0)
    model = VideoViT(32, 8, 2, 192, 4, 3, 8)
    assert model.blocks[3].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[3].mlp.fc2.weight.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.05)
    assert not model.blocks[0].attn.proj.bias.any()
