"""VideoViT and its rotary positions: what depends on what, and what is computed."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jepa.encoders.video_vit import VideoViT
from jepa.transformer import grid_positions, rotary_table


def encoder(**changes) -> VideoViT:
    torch.manual_seed(0)
    settings = dict(patch=8, tubelet=2, width=48, depth=2, heads=2)
    model = VideoViT(VideoViT.Config(**settings | changes), 32, 8)
    with torch.no_grad():  # weights large enough that attention is far from uniform
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


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
@pytest.mark.parametrize("cls_token", [False, True])
def test_causal_tokens_read_themselves_and_earlier_tokens_in_token_order(cls_token):
    model, video = encoder(cls_token=cls_token, attention="causal"), torch.randn(2, 8, 3, 32, 32)
    changed = video.clone()
    changed[:, 4:6, :, 8:16, 16:24] += 1.0  # row 1, column 2 of step 2: token 2*16 + 4 + 2 = 38
    for keep in (None, torch.arange(64).flip(0).expand(2, -1)):
        before, after = model.forward_features(video, keep), model.forward_features(changed, keep)
        moved = (before.tokens - after.tokens).abs().amax((0, 2))
        moved = moved if keep is None else moved.flip(0)
        assert not moved[:38].any() and moved[38:].min() > 1e-4
        assert not cls_token or (before.cls - after.cls).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("attention", ["block_causal", "causal"])
@pytest.mark.parametrize("positions", ["rotary", "rotary_tiled", "sincos"])
def test_frames_after_t_leave_the_tokens_up_to_t_bit_equal(attention, positions):
    model, video = encoder(attention=attention, positions=positions, depth=3), torch.randn(2, 8, 3, 32, 32)
    whole = model(video)
    for steps in (1, 2, 3):
        changed = video.clone()
        changed[:, 2 * steps :] = torch.randn_like(changed[:, 2 * steps :])
        assert torch.equal(model(changed)[:, :steps], whole[:, :steps])


@torch.no_grad()
@pytest.mark.parametrize("attention", ["block_causal", "causal"])
def test_no_patch_reads_cls(attention):
    model, video = encoder(cls_token=True, attention=attention), torch.randn(1, 8, 3, 32, 32)
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


def test_weights_start_as_published():
    torch.manual_seed(0)
    model = VideoViT(VideoViT.Config(patch=8, tubelet=2, width=192, depth=4, heads=3), 32, 8)
    assert model.blocks[3].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[3].mlp.fc2.weight.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.05)
    assert not model.blocks[0].attn.proj.bias.any()


LEVELS = dict(depth=4, levels=(0, 2, 3))


@torch.no_grad()
@pytest.mark.parametrize("cls_token", [False, True])
def test_each_level_is_the_output_of_its_block_through_a_norm_of_its_own(cls_token):
    model, video = encoder(**LEVELS, cls_token=cls_token), torch.randn(2, 8, 3, 32, 32)
    keep = torch.stack([torch.randperm(64)[:20] for _ in range(2)])
    for kept in (None, keep):
        features = model.forward_features(video, kept)
        raw = model.forward_intermediates(video, model.levels, kept)
        normed = [norm(x) for norm, x in zip(model.norms, raw, strict=True)]
        assert torch.equal(features.levels, torch.cat(normed, -1)) and torch.equal(features.tokens, normed[-1])
        assert torch.equal(model(video, kept).reshape(2, -1, 48), features.tokens)
    assert model.level_count == 3 and (model.norms[0].weight - model.norms[1].weight).abs().max() > 0.01


@torch.no_grad()
def test_levels_change_nothing_but_what_is_given_out():
    video = torch.randn(2, 8, 3, 32, 32)
    plain, deep = encoder(depth=4), encoder(**LEVELS)
    weights = {name.replace("norm.", "norms.2.") if name.startswith("norm.") else name: tensor
               for name, tensor in plain.state_dict().items()}  # fmt: skip
    missing, surplus = deep.load_state_dict(weights, strict=False)
    assert missing == [f"norms.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")] and not surplus
    assert torch.equal(deep(video), plain(video))
    features = plain.forward_features(video)
    assert features.levels is features.tokens and plain.level_count == 1


@torch.no_grad()
def test_intermediates_come_in_the_order_asked_for_and_later_blocks_are_not_computed():
    model, video = encoder(depth=4), torch.randn(1, 8, 3, 32, 32)
    first, last = model.forward_intermediates(video, [0, -1])
    assert torch.equal(model.norm(last), model.forward_features(video).tokens)
    again = model.forward_intermediates(video, [3, 0, 3])
    assert all(torch.equal(x, y) for x, y in zip(again, (last, first, last), strict=True))
    costs = []
    model, video = model.to("meta"), video.to("meta")
    for indices in ([0], [1], [0, 3]):
        with FlopCounterMode(display=False) as counter:
            model.forward_intermediates(video, indices)
        costs.append(counter.get_total_flops())
    block = 64 * (8 * 48**2 + 16 * 48**2 + 4 * 64 * 48)
    assert costs[1] - costs[0] == block and costs[2] - costs[0] == 3 * block
    for wrong in ([4], [], [-5]):
        with pytest.raises(ValueError, match=r"indices name blocks 0 to 3, or -1 to -4 from the end; found"):
            model.forward_intermediates(video, wrong)


@pytest.mark.parametrize("levels", [(0, 2), (2, 0, 3), (-1, 3), (0, 0, 3), (0, 3, 4)])
def test_levels_that_do_not_end_with_the_last_block_are_refused(levels):
    with pytest.raises(ValueError, match="end with the last block, 3 at depth 4; found"):
        encoder(depth=4, levels=levels)


@torch.no_grad()
def test_a_clip_of_one_frame_is_an_image_with_an_embedding_of_its_own():
    model, image = encoder(images=True), torch.randn(2, 1, 3, 32, 24)
    assert model.grid(image) == (1, 4, 3)
    tokens = model(image)
    assert tokens.shape == (2, 1, 12, 48)

    embedded = model.patch_embed_image.proj(image.transpose(1, 2)).flatten(2).transpose(1, 2) + model.image_token
    plain = encoder()
    plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in plain.state_dict()})
    positions = grid_positions(torch.arange(12)[None], (1, 4, 3))
    x = embedded
    for block in plain.blocks:
        x = block(x, rotary_table(positions, 24))
    torch.testing.assert_close(plain.norm(x)[:, None], tokens, atol=1e-5, rtol=1e-5)

    keep = torch.tensor([[0, 5, 7], [11, 2, 3]])
    kept = model(image, keep)
    assert torch.equal(model(image + 0.0, keep), kept) and kept.shape == (2, 3, 48)


@torch.no_grad()
def test_the_modality_token_is_added_to_every_patch_token():
    video = torch.randn(2, 8, 3, 32, 32)
    model, plain = encoder(images=True), encoder()
    plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in plain.state_dict()})
    plain.patch_embed.proj.bias.add_(model.video_token[0, 0])  # the same sum, made earlier
    torch.testing.assert_close(model(video), plain(video), atol=1e-5, rtol=1e-5)
    fresh = VideoViT(VideoViT.Config(patch=8, tubelet=2, width=48, depth=1, heads=2, images=True), 32, 8)
    assert 0 < fresh.video_token.abs().max() < 1e-5 and 0 < fresh.image_token.abs().max() < 1e-5


def test_one_frame_is_an_error_without_an_image_embedding():
    with pytest.raises(ValueError, match="1 frames do not divide into tubelets of 2"):
        encoder()(torch.randn(1, 1, 3, 32, 32))


@torch.no_grad()
def test_attention_on_a_position_grid_is_that_of_each_pair_of_channels_turned_by_hand():
    model, grid = encoder(position_grid=16), (2, 3, 5)
    attention, x = model.blocks[0].attn.double(), torch.randn(1, 30, 48, dtype=torch.float64)
    query, key, value = attention.qkv(x)[0].view(30, 3, 2, 24).unbind(1)  # [token, head, channel]
    angle = torch.zeros(30, 12, dtype=torch.float64)
    for token in range(30):
        place = token // 15, (token % 15 // 5) * 15 / 2, (token % 5) * 15 / 4
        for pair in range(12):  # 24 channels: 4 pairs for each of three axes
            angle[token, pair] = place[pair // 4] * 10_000 ** (-(pair % 4) / 4)

    def turned(x):
        even, odd = x[..., 0::2], x[..., 1::2]
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)

    scores = torch.einsum("qhc,khc->hqk", turned(query), turned(key)) / 24**0.5
    by_hand = attention.proj(torch.einsum("hqk,khc->qhc", scores.softmax(-1), value).flatten(1))
    positions = grid_positions(torch.arange(30)[None], grid, model.position_grid)
    ours = attention(x, model.rotary_table(positions))
    torch.testing.assert_close(ours[0], by_hand, atol=1e-5, rtol=0)


@torch.no_grad()
def test_with_a_position_grid_of_its_own_size_an_encoder_is_unchanged_and_at_others_it_is_not():
    video, wide = torch.randn(1, 4, 3, 32, 32), torch.randn(1, 4, 3, 64, 64)
    plain, spread = encoder(), encoder(position_grid=4)
    assert torch.equal(plain(video), spread(video))
    assert (plain(wide) - spread(wide)).abs().max() > 1e-3


@torch.no_grad()
def test_a_feature_map_has_every_token_where_it_stands():
    model, video = encoder(), torch.randn(2, 8, 3, 24, 40)
    assert torch.equal(model.feature_map(video)[:, 3, 2, 4], model(video)[:, 3, 2 * 5 + 4])
    assert model.feature_map(video).shape == (2, 4, 3, 5, 48)
