"""`jepa export` and `jepa import`: what goes out comes back in with the same bits, or is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import jepa
from jepa.cli import main
from jepa.config import UserError
from jepa.decoders.classifier import AttentiveClassifier
from jepa.encoders.conv import ConvEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.models.config import ModelConfig
from jepa.models.model import Model, imported, open_model, save
from jepa.predictors.causal import CausalPredictor
from jepa.predictors.masked import MaskedPredictor
from jepa.transformer import Positions
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing, rollout
from tests.edited import write_edited

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, FRAMES, FPS = 32, 4, 8.0
LABELS = ("falls", "rolls", "stands")


def encoder(positions: Positions = "rotary_tiled", channels: int = 3, **settings: Any) -> VideoViT:
    config = VideoViT.Config(patch=8, tubelet=2, width=48, depth=2, heads=4, positions=positions, **settings)
    return VideoViT(config, SIZE, FRAMES, channels=channels)


def run_jepa(capsys: pytest.CaptureFixture[str], *arguments: object, fails: bool = False) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    assert ended.value.code == (2 if fails else 0), told.err
    return told.err if fails else told.out


@pytest.fixture
def vjepa2(tmp_path: Path) -> Path:
    """V-JEPA 2 with its predictor."""
    torch.manual_seed(0)
    predictor = MaskedPredictor(
        MaskedPredictor.Config(width=24, depth=1, heads=2, positions="rotary_tiled"), 48, mask_kinds=3
    )
    save(imported("test", encoder(), fps=FPS, predictor=predictor, mean=(0.4, 0.5, 0.6)), tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def acting(tmp_path: Path) -> Path:
    """V-JEPA 2-AC, small."""
    torch.manual_seed(0)
    predictor = CausalPredictor(
        CausalPredictor.Config(
            state_size=7,
            hidden=48,
            depth=2,
            heads=2,
            positions="rotary_tiled",
            camera_size=6,
            layer_norm_out=True,
            next_state="apply_delta_pose",
            normalize_actions=False,
        ),
        48,
        7,
        grid=(4, 4),
    )
    save(imported("test", encoder(), fps=FPS, predictor=predictor), tmp_path / "acting")
    return tmp_path / "acting"


def same(ours: nn.Module | None, theirs: nn.Module | None) -> None:
    assert ours is not None and theirs is not None
    theirs_by_name = theirs.state_dict()
    assert ours.state_dict().keys() == theirs_by_name.keys()
    assert all(torch.equal(tensor, theirs_by_name[name]) for name, tensor in ours.state_dict().items())


FROM_META = ("--image-size", SIZE, "--frames", FRAMES, "--fps", FPS, "--heads", 4, "--predictor-heads", 2)


def test_to_huggingface_and_back(vjepa2: Path, tmp_path: Path, capsys) -> None:
    told = run_jepa(capsys, "export", vjepa2, "--to", "huggingface")
    assert "encoder 0.1 M parameters, width 48, depth 2, 32 px, 8 frames/s; predictor" in told
    run_jepa(capsys, "import", vjepa2 / "export/huggingface", "--from", "huggingface", "--out", tmp_path / "back")
    before, after = open_model(vjepa2), open_model(tmp_path / "back")
    same(before.world, after.world)
    same(before.predictor, after.predictor)
    p = after.world.preprocessing
    assert p == before.world.preprocessing and p.mean == (0.4, 0.5, 0.6) and after.config.frames == FRAMES


def test_to_meta_and_back(vjepa2: Path, tmp_path: Path, capsys) -> None:
    run_jepa(capsys, "export", vjepa2, "--to", "meta", "--out", tmp_path / "a.pt")
    told = run_jepa(capsys, "import", tmp_path / "a.pt", "--from", "meta", *FROM_META, "--out", tmp_path / "back")
    assert f"Next: jepa embed VIDEOS --model {tmp_path / 'back'}" in told
    before, after = open_model(vjepa2), open_model(tmp_path / "back")
    same(before.world, after.world)
    same(before.predictor, after.predictor)
    assert after.config.method == "meta" and after.world.spec == before.world.spec


def test_to_openjepa(vjepa2: Path, tmp_path: Path, capsys) -> None:
    run_jepa(capsys, "export", vjepa2, "--to", "openjepa", "--out", tmp_path / "copy")
    before, after = open_model(vjepa2), open_model(tmp_path / "copy")
    same(before.world, after.world)
    same(before.predictor, after.predictor)
    assert before.config == after.config


def test_classifiers_keep_their_labels(tmp_path: Path, capsys) -> None:
    torch.manual_seed(0)
    classifier = AttentiveClassifier(48, 4, 1, len(LABELS))
    save(imported("test", encoder(), fps=FPS, classifier=classifier, labels=LABELS), tmp_path / "mine")
    run_jepa(capsys, "export", tmp_path / "mine", "--to", "huggingface", "--out", tmp_path / "theirs")
    told = run_jepa(capsys, "import", tmp_path / "theirs", "--from", "huggingface", "--out", tmp_path / "back")
    assert "classifier 0.1 M" in told
    before, after = open_model(tmp_path / "mine"), open_model(tmp_path / "back")
    same(before.world, after.world)
    same(before.classifier, after.classifier)
    assert after.labels == LABELS


@torch.no_grad()
def test_vjepa_2_ac_goes_out_and_comes_back_and_imagines_the_same(acting: Path, tmp_path: Path, capsys) -> None:
    run_jepa(capsys, "export", acting, "--to", "meta", "--out", tmp_path / "ac.pt")
    run_jepa(capsys, "import", tmp_path / "ac.pt", "--from", "meta", *FROM_META, "--out", tmp_path / "back")
    before, after = jepa.load(acting), jepa.load(tmp_path / "back")
    same(before, after)
    assert after.spec.frames_per_step == 1 and after.spec.action_size == 7 and after.spec.step_seconds == 1 / FPS
    video = torch.randint(0, 256, (1, 3, 3, SIZE, SIZE), dtype=torch.uint8)
    z = after.encode(video)
    assert z.shape == (1, 3, 16, 48) and torch.equal(z, before.encode(video))
    torch.testing.assert_close(z.mean(-1), torch.zeros(1, 3, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(z[:, 1], after.encode_image(video[:, 1]), atol=1e-5, rtol=1e-5)  # a still of its own
    poses = 0.1 * torch.randn(1, 3, 7)
    ahead = [
        rollout(model.dynamics, model.dynamics.initial_state(z, poses[:, :2], poses), 0.1 * torch.ones(1, 2, 2, 7))
        for model in (before, after)
        if isinstance(model.dynamics, CausalPredictor)
    ]
    assert torch.equal(*ahead)


def test_imported_models_are_probed_on_shards(vjepa2: Path, tmp_path: Path, capsys) -> None:
    world = (
        "data",
        "record",
        "billiards-easy",
        tmp_path / "data",
        "--episodes",
        10,
        "--frames",
        24,
        "--image-size",
        32,
    )
    run_jepa(capsys, *world)
    told = run_jepa(capsys, "probe", vjepa2, f"shards={tmp_path / 'data'}", "labels=[]", fails=True)
    assert "8 does not divide 10, the rate of the actions" in told
    told = run_jepa(capsys, "probe", vjepa2, f"shards={tmp_path / 'data'}", "labels=[]", "fps=5")
    assert "no supervised baseline" in told and "state R²  pretrained" in told
    result = json.loads((vjepa2 / "probe.json").read_text())
    assert {"pretrained", "random_init", "pixels", "floor"} <= set(result["scores"]["state_r2"])
    told = run_jepa(capsys, "probe", vjepa2, fails=True)
    assert "is a model without a run: say what to probe it on, shards=FOLDER" in told


def test_to_onnx(vjepa2: Path, capsys) -> None:
    import onnxruntime

    told = run_jepa(capsys, "export", vjepa2, "--to", "onnx", "--image-size", 48)
    assert "video [batch, 4, 3, 48, 48], normalized; onnxruntime differs by" in told
    session = onnxruntime.InferenceSession(vjepa2 / "export/model.onnx", providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert (about["fps"], about["tubelet"], about["mean"], about["image_size"]) == ("8", "2", "0.4 0.5 0.6", "48")


def test_what_is_there_is_not_overwritten_unasked(vjepa2: Path, tmp_path: Path, capsys) -> None:
    (out := tmp_path / "taken").mkdir()
    told = run_jepa(capsys, "export", vjepa2, "--to", "openjepa", "--out", out, fails=True)
    assert "is already there; give another --out, or --overwrite" in told and not list(out.iterdir())
    run_jepa(capsys, "export", vjepa2, "--to", "openjepa", "--out", out, "--overwrite")
    assert open_model(out).predictor is not None
    alone = open_model(vjepa2)
    save(Model(alone.world, alone.config), out)
    assert open_model(out).predictor is None, "the predictor of the model before belongs to another encoder"


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path, capsys) -> None:
    spec, p = LatentSpec(1, 24, 0.25, 2), Preprocessing(SIZE, FPS, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    config = ModelConfig(
        method="test",
        frames=FRAMES,
        encoder=ConvEncoder.Config(width=24),
        spec=spec,
        preprocessing=p,
    )
    save(
        Model(LatentWorldModel(ConvEncoder(ConvEncoder.Config(width=24), SIZE, 4), None, spec, p), config),
        tmp_path / "conv",
    )
    for to in ("huggingface", "meta"):
        told = run_jepa(capsys, "export", tmp_path / "conv", "--to", to, fails=True)
        assert f"{to} holds encoders of kind video_vit, this one is of kind conv" in told
        assert not list((tmp_path / "conv").glob("export/*"))
    model = imported("test", encoder(positions="rotary", levels=(0, 1), position_grid=16), fps=FPS)
    save(model, tmp_path / "dense")
    told = run_jepa(capsys, "export", tmp_path / "dense", "--to", "huggingface", fails=True)
    assert "positions rotary_tiled; this encoder has rotary" in told
    with pytest.raises(UserError, match="its encoder reads 1 channels; models here read RGB video, 3 channels"):
        imported("test", encoder(channels=1), fps=FPS)


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("export", ("--to", "meta", "--frames", 8), "--image-size and --frames fix the clips of an ONNX file"),
        ("export", ("--to", "onnx", "--image-size", 36), "frames of 36x36 pixels do not divide into patches of 8"),
        ("import", ("--from", "huggingface", "--heads", 4), "are for Meta's files; here config.json says it"),
        ("import", ("--from", "meta"), "Give --image-size and --frames: 256"),
        ("import", ("--from", "meta", *FROM_META), "no such file"),
    ],
)
def test_wrong_options(vjepa2: Path, tmp_path: Path, capsys, verb: str, arguments: tuple, message: str) -> None:
    out = tmp_path / "out" / "a"
    told = run_jepa(capsys, verb, vjepa2, *arguments, "--out", out, fails=True)
    assert message in " ".join(told.split())
    assert not out.exists()


def test_another_encoder_of_the_file_is_named_where_the_target_encoder_is_missing(tmp_path: Path, capsys) -> None:
    torch.save({"encoder": {}, "predictor": {}}, tmp_path / "ac.pt")
    told = run_jepa(capsys, "import", tmp_path / "ac.pt", "--from", "meta", *FROM_META, fails=True)
    assert "with the key 'target_encoder', found encoder, predictor; read its weights encoder" in " ".join(told.split())


def test_a_model_folder_with_a_misspelt_key_is_reported(vjepa2: Path, capsys) -> None:
    described = json.loads((vjepa2 / "model.json").read_text())
    described["encoder"]["widht"] = 48
    write_edited(vjepa2 / "model.json", described)
    told = run_jepa(capsys, "export", vjepa2, "--to", "onnx", fails=True)
    assert "widht" in told and "model.json" in told
