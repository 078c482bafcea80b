"""ONNX files: what onnxruntime computes from them, for every kind of encoder and at two input sizes."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from jepa.config import UserError
from jepa.encoders.conv import ConvEncoder
from jepa.encoders.per_frame import PerFrameEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.models.onnx import to_onnx
from jepa.transformer import grid_positions, rotary_table, rotate


def video_vit(**settings) -> VideoViT:
    torch.manual_seed(0)
    return VideoViT(VideoViT.Config(patch=8, tubelet=2, width=48, depth=2, heads=2, **settings), 32, 4).eval()


KINDS = {
    "rotary": {},
    "rotary_tiled": {"positions": "rotary_tiled"},
    "sincos": {"positions": "sincos"},
    "block-causal with CLS": {"attention": "block_causal", "cls_token": True},
    "V-JEPA 2.1": {"levels": (0, 1), "images": True, "position_grid": 16},
}


def run(path: Path, video: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["latents"], {"video": video.numpy()})[0])


@pytest.mark.parametrize("size", [32, pytest.param(48, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["rotary", *(pytest.param(kind, marks=pytest.mark.slow) for kind in list(KINDS)[1:])])
def test_onnxruntime_computes_the_same_latents_and_the_file_says_how_to_prepare_video(tmp_path, kind, size):
    encoder = video_vit(**KINDS[kind])
    video = torch.randn(2, 6, 3, size, size)
    with torch.no_grad():
        before = encoder(video)
        difference = to_onnx(encoder, tmp_path / "a.onnx", image_size=size, frames=6, about={"fps": "8"})
        torch.testing.assert_close(run(tmp_path / "a.onnx", video), before, atol=1e-5, rtol=0)
        assert difference < 1e-5 and torch.equal(encoder(video), before)
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    assert {"format": "openjepa-onnx", "image_size": str(size), "frames": "6", "fps": "8"}.items() <= found.items()
    (given,), (latents,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1:]) == ("video", [6, 3, size, size]) and isinstance(given.shape[0], str)
    assert (latents.name, latents.shape[1:]) == ("latents", [3, (size // 8) ** 2, 48])


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder",
    [ConvEncoder(ConvEncoder.Config(width=24), 32, 4), PerFrameEncoder.around(video_vit())],
    ids=["conv", "stills"],
)
def test_encoders_of_other_kinds(tmp_path, encoder):
    encoder.eval()
    to_onnx(encoder, tmp_path / "a.onnx", image_size=32, frames=4)
    video = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(run(tmp_path / "a.onnx", video), encoder(video), atol=1e-5, rtol=0)


def test_clips_that_the_patch_does_not_divide(tmp_path):
    with pytest.raises(UserError, match=r"no clips of 4 frames of 36 pixels.*patches of 8"):
        to_onnx(video_vit(), tmp_path / "a.onnx", image_size=36, frames=4)
    assert not list(tmp_path.iterdir())


class Doubtful(nn.Module):
    """Computes something else when it is exported."""

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return video.mean((-1, -2)) + (1.0 if torch.compiler.is_exporting() else 0.0)


def test_a_file_that_computes_something_else_is_not_written(tmp_path):
    with pytest.raises(UserError, match=r"differ from ours by up to 1.0e\+00, more than 1e-04; no file was written"):
        to_onnx(Doubtful(), tmp_path / "a.onnx", image_size=32, frames=4)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'openjepa\[onnx\]'"):
        to_onnx(video_vit(), tmp_path / "a.onnx", image_size=32, frames=4)


@pytest.mark.parametrize("kind", ["rotary", "rotary_tiled"])
def test_real_and_complex_tables_turn_alike(kind):
    table = rotary_table(grid_positions(torch.arange(24)[None], (2, 3, 4)), 32, kind)
    x = torch.randn(2, 24, 2, 3, 32)
    np.testing.assert_allclose(rotate(x, torch.view_as_real(table)), rotate(x, table), atol=1e-6)
