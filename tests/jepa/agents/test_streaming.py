"""StreamingEncoder: the same latents as the whole clip, at the cost of the new frames."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jepa.agents import StreamingEncoder
from jepa.config import UserError
from jepa.encoders.video_vit import VideoViT
from jepa.transformer import grid_positions
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing

STEPS, N = 9, 12


def encoder(**changes) -> VideoViT:
    torch.manual_seed(0)
    settings = dict(patch=8, tubelet=2, width=48, depth=3, heads=2, attention="block_causal")
    model = VideoViT(VideoViT.Config(**settings | changes), 32, 8)
    with torch.no_grad():  # weights large enough that attention is far from uniform
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def clip(tubelet: int = 2) -> torch.Tensor:
    return torch.randn(2, STEPS * tubelet, 3, 32, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cls_token", [False, True])
@pytest.mark.parametrize("attention", ["causal", "block_causal"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(positions="rotary_tiled", tubelet=1),
        dict(positions="sincos"),
        dict(levels=(0, 2), images=True, position_grid=16),
    ],
)
@torch.no_grad()
def test_frame_by_frame_equals_the_whole_clip(attention, cls_token, settings):
    model = encoder(attention=attention, cls_token=cls_token, **settings)
    video, stream = clip(model.tubelet), StreamingEncoder(model)
    pieces = []
    for number, frame in enumerate(video.split(1, 1), start=1):
        z = stream.push(frame)
        assert z.shape == (2, number % model.tubelet == 0, N, 48)
        pieces.append(z)
        if z.shape[1]:
            assert stream.steps == number // model.tubelet
            if cls_token:  # CLS of what was seen so far
                seen = model.forward_features(video[:, :number])
                torch.testing.assert_close(stream.features.cls, seen.cls, atol=1e-5, rtol=0)
    whole = model.forward_features(video)
    torch.testing.assert_close(torch.cat(pieces, 1).flatten(1, 2), whole.tokens, atol=1e-5, rtol=0)
    torch.testing.assert_close(stream.features.levels, whole.levels[:, -N:], atol=1e-5, rtol=0)
    assert (stream.features.cls is None) == (not cls_token)


@torch.no_grad()
def test_it_does_not_matter_how_many_frames_come_at_once():
    model, video = encoder(cls_token=True), clip()
    one_by_one, in_pieces = StreamingEncoder(model), StreamingEncoder(model)
    first = torch.cat([one_by_one.push(frame) for frame in video.split(1, 1)], 1)
    second = torch.cat([in_pieces.push(piece) for piece in video.split((5, 1, 7, 5), 1)], 1)
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)  # other shapes are summed in another order
    torch.testing.assert_close(one_by_one.features.cls, in_pieces.features.cls, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls_token", [False, True])
@pytest.mark.parametrize("attention", ["causal", "block_causal"])
@torch.no_grad()
def test_a_window_is_sliding_window_attention_in_every_block(attention, cls_token):
    window = 4
    model, video = encoder(attention=attention, cls_token=cls_token), clip()
    stream = StreamingEncoder(model, window)
    z = stream.push(video)

    index = torch.arange(STEPS * N)
    positions = grid_positions(index[None], (STEPS, 4, 3))
    step = index // N
    order = step if attention == "block_causal" else index
    mask = (order[:, None] >= order) & (step[:, None] - step < window)
    if cls_token:
        mask = torch.cat((torch.zeros(len(mask), 1, dtype=torch.bool), mask), 1)
        mask = torch.cat((torch.cat((torch.tensor([True]), step >= STEPS - window))[None], mask))
    x, rotary = model.embed(video, None, positions, "video"), model.rotary_table(positions)
    for block in model.blocks:
        x = block(x, rotary, mask[None, None])
    by_hand = model.read_out([x])
    torch.testing.assert_close(z.flatten(1, 2), by_hand.tokens, atol=1e-5, rtol=0)
    if cls_token:
        torch.testing.assert_close(stream.features.cls, by_hand.cls, atol=1e-5, rtol=0)

    whole = model(video)
    torch.testing.assert_close(z[:, :window], whole[:, :window], atol=1e-5, rtol=0)
    assert (z[:, window:] - whole[:, window:]).abs().amax((2, 3)).min() > 1e-4  # an approximation from there on


@torch.no_grad()
def test_a_window_bounds_memory_and_work():
    model, video = encoder(), clip()
    stream, everything = StreamingEncoder(model, 3), StreamingEncoder(model)
    bytes_of_a_step = 3 * 2 * 2 * N * 48 * 4  # blocks, keys and values, batch, tokens, width, fp32
    sizes = []
    for step in video.split(2, 1):
        stream.push(step)
        everything.push(step)
        sizes.append(stream.nbytes)
    assert set(sizes) == {3 * bytes_of_a_step}
    assert STEPS * bytes_of_a_step <= everything.nbytes <= 2 * STEPS * bytes_of_a_step


@torch.no_grad()
def test_a_step_costs_what_the_docstring_says():
    model, video = encoder().to("meta"), clip().to("meta")
    stream = StreamingEncoder(model)
    for t, step in enumerate(video.split(2, 1)):
        with FlopCounterMode(display=False) as counter:
            stream.push(step)
        patches = N * 2 * 48 * 3 * 2 * 64
        blocks = 3 * N * (8 * 48**2 + 4 * 48**2 * 4 + 4 * (t + 1) * N * 48)
        assert counter.get_total_flops() == 2 * (patches + blocks)


@torch.no_grad()
def test_after_a_reset_nothing_is_known_of_the_video_before():
    model, video = encoder(cls_token=True), clip()
    stream = StreamingEncoder(model)
    first = stream.push(video[:, :5])
    stream.reset()
    assert stream.steps == 0 and stream.features is None and stream.nbytes == 0
    assert torch.equal(stream.push(video[:, :5]), first)
    stream.reset()
    assert stream.push(torch.randn(1, 2, 3, 16, 16)).shape == (1, 1, 4, 48)  # other clips of another size


@torch.no_grad()
def test_a_stream_runs_in_bf16():
    model, video = encoder(cls_token=True), clip()
    stream = StreamingEncoder(model)
    with torch.autocast("cpu", torch.bfloat16):
        z, whole = stream.push(video), model(video)
    torch.testing.assert_close(z.float(), whole.float(), atol=0.1, rtol=0.05)


def test_a_world_model_streams_what_it_encodes():
    spec, preprocessing = LatentSpec(16, 48, 0.2, 2), Preprocessing(32, 10.0, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    model = LatentWorldModel(encoder(), None, spec, preprocessing)
    camera = torch.randint(0, 256, (1, 6, 3, 48, 48), dtype=torch.uint8)
    stream = StreamingEncoder(model.encoder)
    z = torch.cat([stream.push(model.prepare(frame)) for frame in camera.split(1, 1)], 1)
    torch.testing.assert_close(z, model.encode(camera), atol=1e-5, rtol=0)


def test_an_encoder_that_reads_the_future_is_refused():
    with pytest.raises(UserError, match=r"bidirectional attention: .* encoder.attention=block_causal or causal"):
        StreamingEncoder(encoder(attention="bidirectional"))
    with pytest.raises(UserError, match="window counts latent steps and is at least 1, found 0"):
        StreamingEncoder(encoder(), 0)


def test_frames_that_do_not_continue_the_stream_are_refused():
    stream = StreamingEncoder(encoder())
    stream.push(torch.randn(2, 2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"began with frames of \(4, 4\) patches, found \(4, 3\); reset"):
        stream.push(torch.randn(2, 2, 3, 32, 24))
    with pytest.raises(ValueError, match="began with 2 clips, found 1; reset"):
        stream.push(torch.randn(1, 2, 3, 32, 32))
    with pytest.raises(ValueError, match="32x30 pixels do not divide into patches of 8"):
        StreamingEncoder(encoder()).push(torch.randn(1, 1, 3, 32, 30))
    stream.reset()
    stream.push(torch.randn(2, 1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"frames of \[1, 1, 3, 32, 32\] do not continue those of \[2, 1, 3, 32, 32\]"):
        stream.push(torch.randn(1, 1, 3, 32, 32))
