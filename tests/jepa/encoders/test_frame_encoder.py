"""Image backbones on video: what comes out is timm's, frame by frame; what does not fit is said."""

import pytest
import timm
import torch

from jepa.config import UserError, from_dict
from jepa.encoders.frame import FrameEncoder, latent_width
from jepa.models import build
from jepa.models.config import ModelConfig
from jepa.models.model import load, save
from jepa.training.build_method import build_method, trained
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa.world_model import LatentSpec, Preprocessing
from jepa_data.transforms import IMAGENET_MEAN, IMAGENET_STD


def frame_encoder(name: str, **settings) -> FrameEncoder:
    torch.manual_seed(0)
    return FrameEncoder(FrameEncoder.Config(model=name, **settings), 64, 4).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit", "test_vit4", "vit_small_patch16_dinov3"])
def test_the_patch_tokens_are_those_of_timm_on_the_same_weights(name):
    encoder, video = frame_encoder(name), torch.randn(2, 3, 3, 64, 64)
    theirs = timm.create_model(name, num_classes=0, img_size=64).eval()
    theirs.load_state_dict(encoder.backbone.state_dict())
    z = encoder(video)
    assert z.shape == (2, 3, encoder.tokens, encoder.width) and encoder.tubelet == 1
    for frame in range(3):
        tokens = theirs.forward_features(video[:, frame])[:, theirs.num_prefix_tokens :]
        torch.testing.assert_close(z[:, frame], tokens, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_a_feature_map_becomes_tokens_row_by_row(name):
    encoder, video = frame_encoder(name), torch.randn(1, 2, 3, 64, 64)
    theirs = encoder.backbone.forward_features(video[0])
    theirs = theirs if name.startswith("swin") else theirs.permute(0, 2, 3, 1)
    _, rows, columns = encoder.grid(video)
    assert encoder.grid(video)[0] == 2 and rows * columns == encoder.tokens
    assert torch.equal(encoder.feature_map(video)[0], theirs)
    assert torch.equal(encoder(video)[0, :, columns + 1], theirs[:, 1, 1])


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_resnet", "mobilenetv3_small_050"])
def test_pooled_latents_are_what_the_classifier_would_read(name):
    encoder, video = frame_encoder(name, output="pooled"), torch.randn(2, 3, 3, 64, 64)
    z = encoder(video)
    assert z.shape == (2, 3, 1, encoder.width) and encoder.tokens == 1
    torch.testing.assert_close(z[:, 2, 0], encoder.backbone(video[:, 2]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("output", ["tokens", "pooled"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_resnet", "mobilenetv3_small_050", "test_convnext"])
def test_the_width_is_known_without_the_weights(name, output):
    assert latent_width(name, output) == frame_encoder(name, output=output).width


@torch.no_grad()
def test_a_frame_knows_nothing_of_the_others():
    encoder, video = frame_encoder("test_resnet"), torch.randn(1, 4, 3, 64, 64)
    changed = video.clone()
    changed[:, 2] += 1.0
    before, after = encoder(video), encoder(changed)
    assert torch.equal(before[:, [0, 1, 3]], after[:, [0, 1, 3]]) and not torch.equal(before[:, 2], after[:, 2])


def test_making_an_encoder_leaves_no_trace_in_its_batch_statistics():
    statistics = dict(FrameEncoder(FrameEncoder.Config(model="test_resnet"), 64, 4).named_buffers())
    assert any(name.endswith("running_mean") for name in statistics)
    assert all(not value.any() for name, value in statistics.items() if name.endswith(("running_mean", "tracked")))


@torch.no_grad()
def test_convolutions_read_frames_that_are_not_square_and_transformers_say_that_they_do_not():
    assert frame_encoder("test_resnet").grid(torch.zeros(1, 2, 3, 64, 96))[2] == 3
    encoder = frame_encoder("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match=r"for 64 px: Input width \(96\) doesn't match model \(64\)"):
        encoder(torch.zeros(1, 2, 3, 64, 96))
    with pytest.raises(ValueError, match="frames of 64x60 pixels do not divide into patches of 16x16"):
        encoder(torch.zeros(1, 2, 3, 64, 60))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_tiny_patch16_225", 64, "has no model 'vit_tiny_patch16_225'; did you mean 'vit_tiny_patch16_224'"),
        ("hf-hub:someone/something", 64, "has no model 'hf-hub:someone/something'"),
        ("local-dir:/tmp/folder", 64, "has no model 'local-dir:/tmp/folder'"),
        ("os.system", 64, "has no model 'os.system'"),
        ("vit_tiny_patch16_224.none", 64, r"cannot make vit_tiny_patch16_224.none .*Invalid pretrained tag \(none\)"),
        ("vit_tiny_patch16_224", 60, "cannot read images of 60 px: .* do not divide into patches of 16x16"),
    ],
)
def test_what_timm_does_not_have_is_said_in_words(name, size, message):
    with pytest.raises(ValueError, match=message):
        FrameEncoder(FrameEncoder.Config(model=name), size, 4)
    with pytest.raises(UserError, match="encoder: "):
        build.build_encoder(FrameEncoder.Config(model=name), size, 4)


def test_weights_that_cannot_be_had_are_an_error_in_one_line():
    with pytest.raises(ValueError, match="cannot make test_vit4 with its weights at 64 px: ") as error:
        FrameEncoder(FrameEncoder.Config(model="test_vit4", pretrained=True), 64, 4)  # tests ask no model hub
    assert "\n" not in str(error.value)


def config(run, shards, output: str) -> PretrainConfig:
    return from_dict(
        {
            "run": str(run),
            "data": {"shards": str(shards), "clip_frames": 4, "batch_size": 4, "workers": 0},
            "encoder": {"kind": "frame", "model": "test_resnet", "output": output},
            "method": {"kind": "lewm", "directions": 16, "predictor": {"hidden": 32}},
            "trainer": {"steps": 2, "device": "cpu", "precision": "fp32"},
        },
        PretrainConfig,
    )


def test_lewm_learns_with_a_pooled_backbone_and_the_model_is_read_back(corpus, tmp_path):
    described = config(tmp_path, corpus, "pooled")
    fresh = build_method(described, 32, action_size=2).encoder.backbone.state_dict()
    model = pretrain(described)
    assert model.spec.tokens == 1 and model.spec.width == 96 and model.spec.frames_per_step == 1
    assert not torch.equal(model.encoder.backbone.conv1[0].weight, fresh["conv1.0.weight"])
    video = torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(load(tmp_path).encode(video), model.encode(video))


def test_training_alone_starts_from_pretrained_weights(corpus, tmp_path):
    """A model that is read back needs no download, and the random baseline of a probe stays random."""
    described = config(tmp_path, corpus, "pooled")
    asked = described.model_copy(update={"encoder": described.encoder.model_copy(update={"pretrained": True})})
    with pytest.raises(UserError, match="encoder: timm cannot make test_resnet with its weights at 32 px: "):
        build_method(asked, 32, action_size=2)  # tests ask no model hub
    one, other = (build.build_encoder(asked.encoder, 32, 4).state_dict() for _ in range(2))
    assert not torch.equal(one["backbone.conv1.0.weight"], other["backbone.conv1.0.weight"])

    method = build_method(described, 32, action_size=2)
    spec = LatentSpec(1, described.encoder.width, 0.1, 1, 2)
    preprocessing = Preprocessing(32, 10.0, IMAGENET_MEAN, IMAGENET_STD)
    described = ModelConfig(
        method="lewm",
        frames=4,
        encoder=asked.encoder,
        dynamics=method.dynamics.config,
        spec=spec,
        preprocessing=preprocessing,
    )
    model = trained(method, described)
    save(model, tmp_path)
    loaded = load(tmp_path).encoder.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.world.encoder.state_dict().items())


def test_lewm_needs_one_vector_a_step(corpus, tmp_path):
    with pytest.raises(UserError, match=r"needs an encoder with one vector per step .*output: pooled"):
        build_method(config(tmp_path, corpus, "tokens"), 64, action_size=2)
