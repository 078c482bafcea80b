"""A training step computes only what it needs: FLOPs of each method's forward pass are those of its docstring."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jepa.encoders.conv import ConvEncoder
from jepa.encoders.per_frame import PerFrameEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.masks.multiblock import MultiBlock
from jepa.methods.base import Batch, ClipShape
from jepa.methods.dino_wm import DinoWM
from jepa.methods.levjepa import LeVJEPA
from jepa.methods.lewm import LeWM
from jepa.methods.pixel_reconstruction import PixelReconstruction, patch_pixels
from jepa.methods.vjepa import VJEPA, Dense
from jepa.methods.vjepa_ac import VJEPAAC
from jepa.predictors.masked import MaskedPredictor
from jepa.predictors.mlp import MLPPredictor
from jepa_data.transforms import random_resized_crop

SHORT_RANGE = MultiBlock(MultiBlock.Config(blocks=8, scale=0.15))  # V-JEPA 1 and 2
LONG_RANGE = MultiBlock(MultiBlock.Config(blocks=2, scale=0.7))

WIDTH, DEPTH, PATCH, NARROW, SHALLOW = 48, 4, 8, 24, 2
TOKENS = 64  # of 8 frames at 32 px
CLIPS = 3
VIDEO = ClipShape(8)
ACTING = ClipShape(8, 2)
PREDICTOR = MaskedPredictor.Config(width=NARROW, depth=SHALLOW, heads=2)
PIXELS = 2 * WIDTH * 3 * 2 * PATCH**2  # FLOPs of a patch's embedding


def blocks(tokens: int, width: int, depth: int) -> int:
    return tokens * depth * (8 * width**2 + 16 * width**2 + 4 * tokens * width)


def encoder(tokens: int) -> int:
    return tokens * PIXELS + blocks(tokens, WIDTH, DEPTH)


def counted(method: nn.Module, batch: Batch) -> int:
    # The fused attention of CPUs is not known to the counter; the plain one computes the same.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        method.loss(batch, torch.Generator().manual_seed(0))
    return counter.get_total_flops()


def vit(**settings) -> VideoViT:
    torch.manual_seed(0)
    return VideoViT(VideoViT.Config(patch=PATCH, tubelet=2, width=WIDTH, depth=DEPTH, heads=2, **settings), 32, 8)


def video(actions: bool = False) -> Batch:
    return Batch(torch.randn(CLIPS, 8, 3, 32, 32), torch.randn(CLIPS, 7, 2) if actions else None)


def shown() -> list[int]:
    """How many tokens each mask shows."""
    return [mask((4, 4, 4), 1, torch.Generator().manual_seed(0))[0].shape[1] for mask in (SHORT_RANGE, LONG_RANGE)]


def test_vjepa_2():
    ours = VJEPA(VJEPA.Config(predictor=PREDICTOR), vit(), VIDEO)
    expected = encoder(TOKENS)
    for seen in shown():
        hidden = TOKENS - seen
        ways = 2 * seen * WIDTH * NARROW + 2 * hidden * NARROW * WIDTH
        expected += encoder(seen) + blocks(TOKENS, NARROW, SHALLOW) + ways
    assert counted(ours, video()) == CLIPS * expected


def test_vjepa_2_1():
    ours = VJEPA(VJEPA.Config(predictor=PREDICTOR, dense=Dense()), vit(levels=(0, 1, 2, 3)), VIDEO)
    expected = encoder(TOKENS)
    for seen in shown():
        into = 2 * seen * (4 * WIDTH * WIDTH + WIDTH * NARROW)
        out = 2 * TOKENS * NARROW * 4 * WIDTH
        expected += encoder(seen) + blocks(TOKENS, NARROW, SHALLOW) + into + out
    found = counted(ours, video())
    # Distances to the nearest hidden token are a small product of their own (torch.cdist).
    assert CLIPS * expected <= found < 1.01 * CLIPS * expected


def test_vpixel():
    model = vit()
    expected = 0
    for seen in shown():
        hidden = TOKENS - seen
        ways = 2 * seen * WIDTH * NARROW + 2 * hidden * NARROW * patch_pixels(model)
        expected += encoder(seen) + blocks(TOKENS, NARROW, SHALLOW) + ways
    assert (
        counted(PixelReconstruction(PixelReconstruction.Config(predictor=PREDICTOR), model, VIDEO), video())
        == CLIPS * expected
    )


def cropping(*sizes: int) -> int:
    """FLOPs of cutting crops of these sides out of the clips: scaling is a product with a matrix."""
    with FlopCounterMode(display=False) as counter:
        for size in sizes:
            random_resized_crop(video().video, size, (0.5, 1.0), (0.75, 4 / 3), generator=torch.Generator())
    return counter.get_total_flops()


def test_levjepa():
    config = LeVJEPA.Config(
        local_views=2,
        local_size=16,
        drop=0.5,
        projector_width=32,
        embedding_width=16,
        directions=8,
    )
    ours = LeVJEPA(config, vit(cls_token=True, attention="block_causal"), VIDEO)
    projector = 2 * (WIDTH * 32 + 32 * 16)
    views = 0
    for tokens in (32, 8, 8):  # half of 64, and of 4 x 2 x 2 twice
        views += tokens * PIXELS + blocks(tokens + 1, WIDTH, DEPTH) + projector
    sigreg = 3 * 2 * 16 * 8  # projections on the directions
    found = counted(ours, video()) - cropping(32, 16, 16)
    knots = 3 * 17 * 8 * 4  # the integral over the knots
    assert CLIPS * (views + sigreg) <= found <= CLIPS * (views + sigreg) + knots


def test_lewm():
    torch.manual_seed(0)
    conv = ConvEncoder(ConvEncoder.Config(width=16), 32, 4)
    ours = LeWM(LeWM.Config(predictor=MLPPredictor.Config(hidden=24), directions=8), conv, ACTING)
    dynamics, inverse = ours.dynamics, ours.inverse_dynamics

    def alone(module: nn.Module, *inputs: torch.Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            module(*inputs)
        return counter.get_total_flops()

    batch = video(actions=True)
    z, actions = torch.randn(CLIPS, 4, 1, 16), torch.randn(CLIPS, 3, 4)
    with FlopCounterMode(display=False) as counter:
        dynamics.step(dynamics.initial_state(z[:, :1], actions[:, :0]), actions[:, 0])
    steps = 3 * counter.get_total_flops()
    parts = alone(conv, batch.video) + steps + alone(inverse, z, actions)
    found = counted(ours, batch)
    assert parts <= found <= 1.02 * parts  # and SIGReg's projections


@pytest.mark.parametrize("method", [VJEPAAC, DinoWM])
def test_a_frozen_encoder_is_run_once_and_costs_no_backward_pass(method):
    torch.manual_seed(0)
    frozen = PerFrameEncoder.around(
        VideoViT(VideoViT.Config(patch=PATCH, tubelet=2, width=WIDTH, depth=DEPTH, heads=2), 32, frames=2)
    )
    predictor = {"hidden": NARROW, "depth": SHALLOW, "heads": 2, "mlp_ratio": 4, "head_dim": None, "window": None}
    settings = {"predictor": predictor | {"conditioning": "token"}, "rollout_steps": 3, "rollout_context": 2}
    ours = method(method.Config.model_validate(settings | {"detach_rollout": False}), frozen, ACTING)
    batch = video(actions=True)
    encoding = 8 * (16 * PIXELS + blocks(16, WIDTH, DEPTH))  # a frame is 16 patches, doubled to a tubelet

    def passes(steps: int) -> int:
        """Of a whole pass over so many frames: 16 patches and the action's token each."""
        keep_out = steps * 17 * SHALLOW * (24 * NARROW**2 + 4 * steps * 17 * NARROW)
        return keep_out + steps * (2 * 2 * 16 * WIDTH * NARROW + 2 * 2 * NARROW)

    forward = passes(7) + passes(3) + passes(4)  # teacher forcing, and two of the three steps of the rollout
    assert counted(ours, batch) == CLIPS * (encoding + forward)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss = ours.loss(batch, torch.Generator())["loss"]
        before = counter.get_total_flops()
        loss.backward()
    backward = counter.get_total_flops() - before
    assert backward < 3.5 * CLIPS * forward, "attention is computed again, and the encoder is not followed"


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_dropped_tokens_are_not_computed(share):
    small = {"local_views": 1, "directions": 8, "projector_width": 8, "embedding_width": 8}
    full = LeVJEPA(LeVJEPA.Config(**small, drop=0.0), vit(), VIDEO)
    part = LeVJEPA(LeVJEPA.Config(**small, drop=1 - share), vit(), VIDEO)
    crops = cropping(32, 16)
    assert counted(part, video()) - crops < 1.1 * share * (counted(full, video()) - crops)
