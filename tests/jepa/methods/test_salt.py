"""SALT: a teacher that reconstructs pixels, then a student of any size that predicts its frozen latents."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from jepa.config import UserError, from_dict
from jepa.encoders.video_vit import VideoViT
from jepa.methods.base import Batch, ClipShape, Method
from jepa.methods.pixel_reconstruction import PixelReconstruction, normalized_patches, patch_pixels
from jepa.methods.vjepa import VJEPA
from jepa.models.model import load
from jepa.training.build_method import build_method
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain

pytestmark = pytest.mark.usefixtures("one_thread")
PREDICTOR = {"width": 24, "depth": 1, "heads": 2}
CLIPS = ClipShape(8)
FROZEN = VJEPA.Config.model_validate({"predictor": PREDICTOR, "teacher": "frozen", "teacher_from": "runs/teacher"})


def pixel_config(**settings: Any) -> PixelReconstruction.Config:
    return PixelReconstruction.Config.model_validate({"predictor": PREDICTOR, **settings})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vit(width: int = 24, **settings: Any) -> VideoViT:
    torch.manual_seed(width)
    config = VideoViT.Config(**{"patch": 8, "tubelet": 2, "width": width, "depth": 1, "heads": 2} | settings)
    return VideoViT(config, 32, 8)


def describe(run: Path, corpus: Path, method: dict[str, Any], **encoder: Any) -> PretrainConfig:
    return from_dict(
        {
            "run": str(run),
            "data": {"shards": str(corpus), "batch_size": 4, "clip_frames": 8},
            "encoder": {"kind": "video_vit", "patch": 8, "width": 24, "depth": 1, "heads": 2} | encoder,
            "method": {"predictor": PREDICTOR} | method,
            "trainer": {"steps": 4, "log_every": 2, "monitor_every": 4, "device": "cpu"},
        },
        PretrainConfig,
    )


def test_patches_are_normalized_one_by_one():
    patches = normalized_patches(torch.randn(2, 5, 96) * 3 + 7)
    torch.testing.assert_close(patches.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(patches.std(-1), torch.ones(2, 5), atol=1e-4, rtol=0)
    assert normalized_patches(torch.full((1, 1, 96), 3.0)).abs().max() == 0  # a flat patch is no division by zero


def test_pixels_of_hidden_patches_are_the_target():
    encoder = vit()
    model = PixelReconstruction(pixel_config(masks=({"blocks": 8, "scale": 0.15},)), encoder, CLIPS)
    predictor = model.predictor
    assert isinstance(model, Method) and patch_pixels(encoder) == 3 * 2 * 8 * 8
    with torch.no_grad():  # predicts 0 everywhere: what is left is the variance of normalized patches
        predictor.predictor_proj.weight.zero_()
        predictor.predictor_proj.bias.zero_()
    loss = model.loss(Batch(torch.randn(2, 8, 3, 32, 32), None), seeded())["loss"]
    assert loss.item() == pytest.approx((384 - 1) / 384, rel=1e-4)


def test_only_the_student_learns_from_a_frozen_teacher():
    teacher, student = vit(48, depth=2), vit(24)
    before = {name: x.clone() for name, x in teacher.state_dict().items()}
    model = VJEPA(FROZEN, student, CLIPS, teacher)
    model.loss(Batch(torch.randn(2, 8, 3, 32, 32), None), seeded())["loss"].backward()
    assert all(p.grad is not None for p in [*student.parameters(), *model.predictor.parameters()])
    model.after_step(1, 2)
    assert model.target_encoder is not None and model.target_encoder is not teacher
    assert all(torch.equal(before[name], x) for name, x in model.target_encoder.state_dict().items())
    assert all(p.grad is None for p in model.target_encoder.parameters())
    assert model.evaluation_encoder() is student


def test_a_run_of_vpixel_is_the_teacher_of_another_run(tmp_path: Path, corpus: Path):
    teacher = tmp_path / "teacher"
    pretrain(describe(teacher, corpus, {"kind": "vpixel"}))
    settings = {"kind": "vjepa", "teacher": "frozen", "teacher_from": str(teacher)}
    config = describe(tmp_path / "student", corpus, settings, width=48, depth=2)
    method = build_method(config, 32, 0)
    assert isinstance(method, VJEPA) and method.target_encoder is not None
    kept = load(teacher).encoder.state_dict()
    assert all(torch.equal(kept[name], x) for name, x in method.target_encoder.state_dict().items())
    model = pretrain(config)
    assert model.spec.width == 48


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VJEPA(FROZEN, vit(), CLIPS), "give both, or neither"),
        (lambda: VJEPA(FROZEN, vit(), CLIPS, vit(24, patch=16)), "must see the same tokens"),
    ],
)
def test_teachers_that_do_not_fit_are_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_config_without_its_teacher_is_refused(tmp_path: Path, corpus: Path):
    with pytest.raises((UserError, ValidationError), match="go together"):
        describe(tmp_path / "run", corpus, {"kind": "vjepa", "teacher": "frozen"})
    missing = describe(tmp_path / "run", corpus, {"kind": "vjepa", "teacher": "frozen", "teacher_from": "nowhere"})
    with pytest.raises(UserError, match="nowhere"):
        build_method(missing, 32, 0)


def test_masks_of_every_kind_are_chosen_by_config(tmp_path: Path, corpus: Path):
    masks = [{"blocks": 2, "scale": 0.3}, {"kind": "tube", "ratio": 0.5}, {"kind": "causal"}, {"kind": "random_drop"}]
    method = build_method(describe(tmp_path / "run", corpus, {"kind": "vjepa", "masks": masks}), 32, 0)
    assert isinstance(method, VJEPA)
    assert [type(mask).__name__ for mask in method.masks] == ["MultiBlock", "Tube", "Causal", "RandomDrop"]
    with pytest.raises(UserError, match="tubes"):
        describe(tmp_path / "run", corpus, {"kind": "vjepa", "masks": [{"kind": "tubes"}]})
