"""jepa.create_encoder and the sizes in a config: names, shapes, and what is said when they are wrong."""

import subprocess
import sys

import pytest
import torch

import jepa
from jepa.config import ConfigError, UserError, from_dict
from jepa.encoders.sizes import SIZES
from jepa.encoders.video_vit import VideoViT
from jepa.models.build import build_encoder

# In millions. Large to giant as counted in the released weights; the papers round to B 80, G 2000, and gigantic is
# 48 blocks of 4*1664² + 2*1664*8192 weights and 23,168 biases and norms, patches of 1536*1664 + 1664, and a norm.
PARAMETERS = dict(tiny=5.6, small=21.9, base=86.2, large=303.9, huge=631.6, giant=1012.2, gigantic=1843.9)


@pytest.mark.parametrize("size", SIZES)
def test_every_name_makes_an_encoder_of_the_published_size(size):
    with torch.device("meta"):
        encoder = jepa.create_encoder(f"vit_{size}")
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count / 1e6 == pytest.approx(PARAMETERS[size], abs=0.06)
    described = SIZES[size]
    assert (encoder.width, len(encoder.blocks), encoder.heads) == (described.width, described.depth, described.heads)
    with torch.device("meta"):
        assert encoder(torch.zeros(1, 16, 3, 256, 256)).shape == (1, 8, 256, encoder.width)


@torch.no_grad()
@pytest.mark.parametrize(("tubelet", "patch"), [(1, 16), (2, 8), (4, 16)])
def test_clips_of_any_length_and_shape_that_the_patches_divide(tubelet, patch):
    encoder = jepa.create_encoder("vit_tiny", image_size=32, frames=4, patch=patch, tubelet=tubelet)
    assert encoder.tokens == (32 // patch) ** 2
    for frames, height, width in ((4, 32, 32), (8, 16, 48), (4, 64, 16)):
        tokens = encoder(torch.randn(1, frames, 3, height, width))
        assert tokens.shape == (1, frames // tubelet, height * width // patch**2, 192) and tokens.isfinite().all()


@torch.no_grad()
def test_settings_reach_the_encoder():
    settings = dict(levels=(2, 5, 8, 11), position_grid=16, images=True, cls_token=True, attention="causal")
    encoder = jepa.create_encoder("vit_tiny", image_size=32, channels=1, **settings)
    features = encoder.forward_features(torch.randn(1, 1, 1, 32, 32))
    assert features.levels.shape == (1, 4, 4 * 192) and features.cls is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(name="vit_bse"), "no encoder 'vit_bse'; did you mean 'vit_base'. The names are vit_tiny, vit_small, "),
        (dict(name="base"), "no encoder 'base'; did you mean 'vit_base'"),
        (dict(name="resnet"), "no encoder 'resnet'. The names are vit_tiny, .*vit_gigantic"),
        (dict(image_size=100), "vit_tiny: frames of 100x100 pixels do not divide into patches of 16"),
        (dict(frames=15), "vit_tiny: 15 frames do not divide into tubelets of 2"),
        (dict(frames=0), "vit_tiny: 0 frames"),
        (dict(patch=0), "vit_tiny: patch: expected a number greater than 0, found 0"),
        (dict(tubelet=-2), "vit_tiny: tubelet: expected a number greater than 0, found -2"),
        (dict(tublet=1), "vit_tiny: tublet: unknown key; did you mean 'tubelet'"),
        (dict(depth=3), "vit_tiny: size tiny has depth 12, found 3"),
        (dict(channels=0), "vit_tiny: channels is at least 1, found 0"),
        (dict(levels=(2, 5)), "vit_tiny: levels are block numbers .* 11 at depth 12; found .2, 5."),
    ],
)
def test_what_does_not_fit_is_said_in_words(arguments, message):
    with pytest.raises(UserError, match=message):
        jepa.create_encoder(**(dict(name="vit_tiny") | arguments))


def test_a_clip_that_does_not_fit_is_refused_by_the_encoder():
    encoder = jepa.create_encoder("vit_tiny", image_size=32)
    with pytest.raises(ValueError, match="frames of 32x40 pixels do not divide into patches of 16"):
        encoder(torch.randn(1, 2, 3, 32, 40))
    with pytest.raises(ValueError, match="3 frames do not divide into tubelets of 2"):
        encoder(torch.randn(1, 3, 3, 32, 32))


def test_asking_for_the_sizes_or_the_kinds_imports_no_torch():
    code = "import sys, jepa, jepa.encoders.sizes; from jepa.encoders import ENCODERS; "
    code += "import jepa.training.config; kinds = list(ENCODERS); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("section", ["data: {shard: x}", "trainer: {step: 3}", "rum: runs/x"])
def test_a_wrong_key_outside_the_parts_is_reported_without_torch(tmp_path, section):
    (tmp_path / "run.yaml").write_text(f"{section}\n")
    code = (
        "import sys; from pathlib import Path; from jepa.config import ConfigError, load\n"
        "from jepa.training.config import PretrainConfig\n"
        f"try: load(Path({str(tmp_path / 'run.yaml')!r}), PretrainConfig)\n"
        "except ConfigError as error: sys.exit('torch' in sys.modules or 'unknown key' not in str(error))\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("size", SIZES)
def test_a_size_in_a_config_fills_what_it_stands_for_and_survives_a_round_trip(size):
    config = from_dict({"kind": "video_vit", "size": size, "patch": 14}, VideoViT.Config)
    assert {name: getattr(config, name) for name in vars(SIZES[size])} == vars(SIZES[size])
    assert from_dict(config.model_dump(mode="json"), VideoViT.Config) == config


def test_a_config_says_everything_an_encoder_can_be():
    data = dict(
        size="tiny", levels=[5, 11], position_grid=16, images=True, positions="rotary_tiled", checkpoint_every=2
    )
    encoder = build_encoder(from_dict(data | dict(attention="causal"), VideoViT.Config), 32, 4)
    assert isinstance(encoder, VideoViT) and encoder.levels == (5, 11) and encoder.position_grid == 16
    assert encoder.images and encoder.positions == "rotary_tiled" and encoder.checkpoint_every == 2
    assert encoder.attention == "causal"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dict(size="base", width=192), "size base has width 768, found 192; leave out one of the two"),
        (dict(size="giant", mlp_ratio=4.0), "size giant has mlp_ratio 4.36364, found 4.0"),
        (dict(size="bass"), "did you mean 'base'"),
        (dict(size="tiny", posititions="rotary"), "unknown key; did you mean 'positions'"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(data, VideoViT.Config)


def test_a_bad_level_in_a_config_is_an_error_for_people():
    with pytest.raises(UserError, match="encoder: levels are block numbers in ascending order"):
        build_encoder(from_dict(dict(size="tiny", levels=[3]), VideoViT.Config), 32, 4)
