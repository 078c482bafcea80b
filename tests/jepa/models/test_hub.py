"""Folders in transformers' layout, as the hub has them: read from safetensors, and nothing else."""

import json
from pathlib import Path

import pytest
import torch

import jepa
from jepa.config import UserError
from jepa.encoders.video_vit import VideoViT
from jepa.models import hub
from jepa.models.huggingface import to_transformers
from jepa.predictors.masked import MaskedPredictor
from jepa_data.preprocessing import Preprocessing

pytestmark = pytest.mark.usefixtures("one_thread")


def encoder() -> VideoViT:
    torch.manual_seed(0)
    return VideoViT(
        VideoViT.Config(patch=8, tubelet=2, width=48, depth=2, heads=4, positions="rotary_tiled"), 32, 8
    ).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    predictor = MaskedPredictor(
        MaskedPredictor.Config(width=24, depth=1, heads=2, positions="rotary_tiled"), 48, mask_kinds=3
    )
    to_transformers(encoder(), predictor).save_pretrained(tmp_path / "model")
    hub.write_preprocessor(tmp_path / "model", Preprocessing(32, 7.5, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "crop", 36))
    return tmp_path / "model"


def test_a_folder_of_transformers_gives_the_same_tokens_and_says_how_to_prepare_video(folder: Path):
    found = hub.read(folder)
    assert found.predictor is not None
    video = torch.randn(1, 8, 3, 32, 32)
    assert torch.equal(found.encoder.eval()(video), encoder()(video))
    assert (found.fps, found.mean, found.std) == (7.5, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def test_jepa_load_opens_it_and_encodes_images_of_any_size(folder: Path):
    model = jepa.load(folder)
    assert (model.spec.tokens, model.spec.width, model.spec.action_size) == (16, 48, None)
    assert model.spec.step_seconds == pytest.approx(2 / 7.5) and model.preprocessing.mean == (0.4, 0.5, 0.6)
    video = torch.randint(0, 256, (1, 8, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(model.encode(video), encoder()(model.prepare(video)))
    assert model.encode(video[..., :20, :30]).shape == (1, 4, 16, 48)


def test_jepa_load_of_an_unknown_id_is_reported():
    with pytest.raises(UserError, match="nobody/nothing: no such folder"):
        jepa.load("nobody/nothing")


def test_only_safetensors_are_read(folder: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"model\.safetensors is missing; only safetensors are read"):
        hub.read(folder)


def test_damaged_and_foreign_folders_are_reported(folder: Path):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged, or not a safetensors file"):
        hub.read(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    with pytest.raises(UserError, match="found BertModel"):
        hub.read(folder)


def test_ids_of_the_hub_and_paths_are_distinguished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert hub.hub_id("facebook/vjepa2-vitl-fpc64-256") == "facebook/vjepa2-vitl-fpc64-256"
    assert hub.hub_id("hf://org/name") == "org/name"
    (tmp_path / "runs").mkdir()
    for path in ("runs/demo", "./a/b", "/a/b", "~/a", "runs", "a/b/c", "org/../x"):
        assert hub.hub_id(path) is None, path


def test_a_model_that_cannot_be_reached_is_reported(tmp_path: Path):
    with pytest.raises(UserError, match="nobody/nothing: no such folder, and nobody/nothing is not in the cache"):
        hub.download("nobody/nothing")
