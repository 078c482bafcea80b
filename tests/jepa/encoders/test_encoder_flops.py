"""What a forward pass of the encoder computes and keeps: FLOPs, the rotary table, activation checkpointing."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from jepa.encoders.video_vit import VideoViT

WIDTH, DEPTH, PATCH = 48, 4, 8


def encoder(frames: int = 8, channels: int = 3, **changes) -> VideoViT:
    torch.manual_seed(0)
    config = VideoViT.Config(patch=PATCH, tubelet=2, width=WIDTH, depth=DEPTH, heads=2, **changes)
    return VideoViT(config, 32, frames, channels=channels)


@pytest.mark.parametrize("kept", [64, 16, 1])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(cls_token=True, attention="block_causal"),
        dict(attention="causal", positions="sincos"),
        dict(levels=(0, 1, 3), images=True, position_grid=16),
        dict(mlp_ratio=8 / 3, channels=4, checkpoint_every=1),
    ],
)
def test_only_kept_tokens_cost_and_they_cost_what_the_docstring_says(settings, kept):
    channels, ratio = settings.get("channels", 3), settings.get("mlp_ratio", 4)
    with torch.device("meta"):
        model, video = encoder(**settings), torch.zeros(3, 8, channels, 32, 32)
        keep = torch.zeros(3, kept, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(video, keep)
    tokens = kept + (model.cls_token is not None)
    blocks = DEPTH * tokens * (8 * WIDTH**2 + 4 * WIDTH**2 * ratio + 4 * tokens * WIDTH)
    formula = kept * 2 * WIDTH * channels * 2 * PATCH**2 + blocks
    assert counter.get_total_flops() == pytest.approx(3 * formula, rel=1e-9)


def test_an_image_costs_half_the_patches_of_a_tubelet_of_two():
    with torch.device("meta"):
        model, image = encoder(images=True), torch.zeros(3, 1, 3, 32, 48)
    with FlopCounterMode(display=False) as counter:
        model(image)
    blocks = DEPTH * 24 * (8 * WIDTH**2 + 16 * WIDTH**2 + 4 * 24 * WIDTH)
    assert counter.get_total_flops() == 3 * (24 * 2 * WIDTH * 3 * PATCH**2 + blocks)


def kept_for_the_backward_pass(model: VideoViT, video: torch.Tensor, keep: torch.Tensor) -> int:
    """Bytes of all but the weights."""
    own, kept = {parameter.data_ptr() for parameter in model.parameters()}, dict[int, int]()

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        z = model(video, keep)
    assert z.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("settings", [{}, dict(cls_token=True, attention="block_causal")])
def test_dropped_tokens_take_no_memory(settings):
    model, keep = encoder(**settings), torch.arange(16).expand(2, -1)
    short, long = (kept_for_the_backward_pass(model, torch.randn(2, frames, 3, 32, 32), keep) for frames in (4, 32))
    assert long == short > 0
    assert kept_for_the_backward_pass(model, torch.randn(2, 4, 3, 32, 32), torch.arange(32).expand(2, -1)) > 1.9 * short


class Operations(TorchDispatchMode):
    """Counts what is computed, with the types of the results."""

    def __init__(self):
        super().__init__()
        self.seen: Counter[tuple[str, torch.dtype]] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.seen[function.overloadpacket.__name__, result.dtype] += 1
        return result


@torch.no_grad()
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("positions", ["rotary", "rotary_tiled"])
def test_the_rotary_table_is_made_once_a_forward_pass_in_fp32(positions, autocast):
    model, video = encoder(positions=positions, cls_token=True), torch.randn(1, 8, 3, 32, 32)
    with Operations() as operations, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tokens = model(video)
    tables = {dtype: count for (name, dtype), count in operations.seen.items() if name == "polar"}
    assert tables == {torch.complex64: 1}
    assert not any(name in ("sin", "cos") for name, _ in operations.seen)
    assert tokens.isfinite().all()


@torch.no_grad()
def test_the_same_angles_are_turned_under_autocast():
    model = encoder(frames=64)
    positions = torch.tensor([[[31.0, 15.0, 7.0]]])
    plain = model.rotary_table(positions)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.rotary_table(positions), plain)


def kept_for_backward(model: VideoViT, video: torch.Tensor) -> int:
    """Bytes that autograd holds between a forward and a backward pass, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(video)
    return sum(storages.values())


def test_checkpointing_gives_equal_gradients_and_keeps_less():
    video, keep = torch.randn(2, 8, 3, 32, 32), torch.stack([torch.randperm(64)[:40] for _ in range(2)])
    gradients, held = {}, {}
    for every in (0, 2, 1):
        model = encoder(checkpoint_every=every, cls_token=True, attention="block_causal", levels=(1, 3))
        features = model.forward_features(video, keep)
        (features.levels.square().sum() + features.cls.sum()).backward()
        gradients[every] = [parameter.grad for parameter in model.parameters()]
        held[every] = kept_for_backward(model, video)
    for every in (1, 2):
        assert all(torch.equal(one, other) for one, other in zip(gradients[every], gradients[0], strict=True))
    assert held[1] < 0.25 * held[0] and 0.4 * held[0] < held[2] < 0.65 * held[0]


def test_checkpointing_recomputes_the_blocks_it_names_and_nothing_without_gradients():
    video = torch.randn(2, 8, 3, 32, 32).to("meta")
    block = 2 * 64 * (8 * WIDTH**2 + 16 * WIDTH**2 + 4 * 64 * WIDTH)
    costs = {}
    for every in (0, 1, 2, 3):
        model = encoder(checkpoint_every=every).to("meta")
        with FlopCounterMode(display=False) as counter:
            model(video).sum().backward()
        costs[every] = counter.get_total_flops()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(video)
        assert counter.get_total_flops() == 2 * 64 * 2 * WIDTH * 3 * 2 * PATCH**2 + DEPTH * block
    # torch stops a recomputation as soon as it has what the backward pass asked for: the last layer, fc2, is left out
    again = block - 2 * 64 * 8 * WIDTH**2
    assert [(costs[every] - costs[0]) / again for every in (1, 2, 3)] == [4, 2, 1]
