"""What every encoder of the table promises, and what the rest asks its config."""

import pytest
import torch

from jepa.config import UserError, from_dict
from jepa.encoders import ENCODERS
from jepa.encoders.base import EncoderConfig
from jepa.encoders.frame import FrameEncoder
from jepa.encoders.module import Encoder
from jepa.encoders.per_frame import PerFrameEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.models.build import build_encoder

SMALL_VIT = {"kind": "video_vit", "patch": 8, "width": 24, "depth": 1, "heads": 2}
SMALL = {
    "conv": {"width": 8, "channels": 4},
    "dreamer_conv": {"channels": [4, 8]},
    "impala": {"width": 8, "channels": [4]},
    "vae": {"width": 8},
    "video_vit": SMALL_VIT,
    "pca": {"width": 8, "side": 4},
    "moments": {},
    "frame": {"model": "test_vit"},
    "per_frame": {"of": SMALL_VIT},
    "compressed": {"of": SMALL_VIT, "reductions": [{"kind": "merge", "tokens": 3}, {"kind": "pca", "width": 8}]},
}
SIDES = {"vae": 64}  # of images; else 32


def config(kind: str) -> EncoderConfig:
    found = from_dict({"kind": kind} | SMALL[kind], ENCODERS.config(kind))
    assert isinstance(found, EncoderConfig)
    return found


def test_every_kind_is_tried_here():
    assert set(SMALL) == set(ENCODERS)


@torch.no_grad()
@pytest.mark.parametrize("kind", SMALL)
def test_an_encoder_is_what_its_attributes_say_and_keeps_its_config(kind):
    described, side = config(kind), SIDES.get(kind, 32)
    encoder = ENCODERS.make(described, side, 4)
    assert isinstance(encoder, Encoder) and encoder.config is described and described.kind == kind
    assert encoder.image_size == side and encoder.tubelet == described.tubelet
    z = encoder.eval()(torch.randn(2, 4, 3, side, side))
    assert z.shape == (2, 4 // encoder.tubelet, encoder.tokens, encoder.width)
    assert from_dict(described.model_dump(mode="json"), type(described)) == described


@pytest.mark.parametrize("kind", SMALL)
def test_the_same_seed_gives_the_same_weights(kind):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_encoder(config(kind), SIDES.get(kind, 32), 4).state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_clips_that_no_tubelet_divides_are_refused_by_the_key():
    with pytest.raises(UserError, match=r"data.clip_frames is 3, no multiple of encoder.tubelet \(2\)"):
        build_encoder(config("conv"), 32, 3)


def test_weights_fit_where_only_their_use_differs():
    vit = VideoViT.Config(width=192, depth=12, heads=3)
    for other in (VideoViT.Config(size="tiny"), VideoViT.Config(checkpoint_every=1), vit.per_frame()):
        assert other.weights_key() == vit.weights_key()
    assert VideoViT.Config(depth=2).weights_key() != vit.weights_key()
    frame = FrameEncoder.Config(model="resnet18", pretrained=True)
    assert frame.has_weights and not frame.without_weights().has_weights
    assert frame.weights_key() == frame.without_weights().weights_key()
    assert frame.per_frame() is frame


def test_only_a_video_encoder_of_images_too_leaves_parameters_out():
    assert VideoViT.Config(images=True).may_skip_parameters
    assert not any(config(kind).may_skip_parameters for kind in SMALL)


def test_a_video_encoder_shown_a_frame_at_a_time_shares_its_weights():
    vit = VideoViT(VideoViT.Config(patch=8, width=24, depth=1, heads=2), 32, 4)
    shown = PerFrameEncoder.around(vit)
    assert shown.encoder is vit and shown.config == vit.config.per_frame() and shown.width == vit.width
