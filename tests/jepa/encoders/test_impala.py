"""IMPALA's encoder, and what LeWM puts behind an image backbone."""

import pytest
import torch
from torch import nn

from jepa.config import UserError, from_dict
from jepa.encoders.frame import FrameEncoder
from jepa.encoders.impala import ImpalaEncoder
from jepa.models.build import build_encoder
from jepa.predictors.gru import GRUPredictor

pytestmark = pytest.mark.usefixtures("one_thread")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_it_has_the_published_parameters() -> None:
    """EB-JEPA's has two channels in the place of three, and a LayerNorm with scale and shift: 1.43 M."""
    ours = ImpalaEncoder(ImpalaEncoder.Config(), 65, 4)
    assert count(ours) - 16 * 9 + 2 * 512 == pytest.approx(1.43e6, rel=0.005)
    assert ours.head.in_features == 32 * 9 * 9


@torch.no_grad()
@pytest.mark.parametrize(("size", "tubelet"), [(64, 1), (65, 1), (33, 2)])
def test_a_step_is_one_layer_normed_vector_of_its_own_frames(size: int, tubelet: int) -> None:
    torch.manual_seed(0)
    encoder = ImpalaEncoder(ImpalaEncoder.Config(width=16, tubelet=tubelet, channels=(4, 8)), size, 4)
    video = torch.randn(2, 3 * tubelet, 3, size, size)
    z = encoder(video)
    assert z.shape == (2, 3, 1, 16)
    torch.testing.assert_close(z.mean(-1), torch.zeros(2, 3, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(-1, correction=0), torch.ones(2, 3, 1), atol=1e-2, rtol=0)
    torch.testing.assert_close(encoder(video[1:, tubelet : 2 * tubelet])[0, 0], z[1, 1], atol=1e-5, rtol=1e-5)
    assert encoder.feature_map(video).shape == (2, 3, -(-size // 4), -(-size // 4), 8)
    with pytest.raises(ValueError, match=f"frames of {size}x{size} pixels"):
        encoder(video[..., 1:])


@torch.no_grad()
def test_residual_blocks_pass_on_what_they_read_when_they_add_nothing() -> None:
    encoder = ImpalaEncoder(ImpalaEncoder.Config(width=8, channels=(4,), blocks=2), 32, 4)
    stack = encoder.stacks[0]
    for pair in stack.blocks:  # pyright: ignore[reportGeneralTypeIssues]
        nn.init.zeros_(pair[1].weight)
        nn.init.zeros_(pair[1].bias)
    frame = torch.randn(1, 3, 32, 32)
    expected = torch.relu(nn.functional.max_pool2d(stack.enter(frame), 3, 2, 1))
    torch.testing.assert_close(stack(frame), expected)


def test_configs_build_them() -> None:
    encoder = build_encoder(from_dict({"width": 32, "channels": [8]}, ImpalaEncoder.Config), 32, 4)
    assert isinstance(encoder, ImpalaEncoder) and encoder.width == 32
    described = {"model": "test_vit", "output": "pooled", "patch": 8, "projection": 48}
    encoder = build_encoder(from_dict(described, FrameEncoder.Config), 32, 4)
    assert isinstance(encoder, FrameEncoder) and encoder.projector is not None and encoder.tokens == 1
    assert encoder.backbone.patch_embed.patch_size == (8, 8)  # pyright: ignore[reportAttributeAccessIssue]
    assert encoder.width == from_dict(described, FrameEncoder.Config).width == 64
    with pytest.raises(UserError, match="use it with output: pooled"):
        build_encoder(from_dict({"model": "test_vit", "projection": 48}, FrameEncoder.Config), 32, 4)
    with pytest.raises(UserError, match="timm cannot make test_resnet"):
        build_encoder(from_dict({"model": "test_resnet", "patch": 8}, FrameEncoder.Config), 32, 4)


@torch.no_grad()
def test_a_projection_is_an_mlp_with_batch_norm_behind_the_pooled_vector() -> None:
    torch.manual_seed(0)
    encoder = FrameEncoder(FrameEncoder.Config(model="test_vit", output="pooled", projection=48), 32, 4)
    video = torch.randn(4, 2, 3, 32, 32)
    assert encoder.projector is not None
    hidden: list[torch.Tensor] = []
    encoder.projector[1].register_forward_hook(lambda module, inputs, output: hidden.append(output))
    z = encoder.train()(video)
    assert z.shape == (4, 2, 1, 64)
    torch.testing.assert_close(hidden[0].mean(0), torch.zeros(48), atol=1e-5, rtol=0)
    pooled = encoder.backbone.eval()(video.flatten(0, 1))
    torch.testing.assert_close(encoder.projector(pooled).view(4, 2, 1, 64), z)


@torch.no_grad()
def test_a_gru_may_end_in_the_same_layer_norm_and_has_the_published_size() -> None:
    gru = GRUPredictor(GRUPredictor.Config(layer_norm_out=True), 512, 2)
    assert count(gru) == pytest.approx(0.79e6, rel=0.005)
    z = gru(torch.randn(3, 1, 512), torch.randn(3, 2))
    torch.testing.assert_close(z.mean(-1), torch.zeros(3, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(-1, correction=0), torch.ones(3, 1), atol=1e-3, rtol=0)
