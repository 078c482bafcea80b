"""`jepa compress`: the folder is a model for every verb, and the report stands beside the original latents."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import jepa
from jepa.cli import main
from jepa.config import UserError, from_dict
from jepa.encoders.compressed import CompressedEncoder
from jepa.encoders.reductions.chain import variance_kept
from jepa.encoders.video_vit import VideoViT
from jepa.models import checkpoint
from jepa.models.build import build_encoder
from jepa.training.run_state.checkpoints import tensors_sha256
from jepa.training.tokenize import tokenize
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing
from jepa_data.config import StreamConfig
from jepa_data.shards.index import ShardSet
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.latents import Latents
from jepa_data.stream.loader import make_loader
from jepa_probes.compression.compress import compress
from jepa_probes.compression.config import CompressConfig
from jepa_probes.compression.result import CompressionResult

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE, FPS, FRAMES = 32, 10.0, 8
VIT = {"kind": "video_vit", "patch": 8, "width": 24, "depth": 1, "heads": 2, "tubelet": 2}
SMALL = "pool:2x2+pca:6"
Jepa = Callable[..., str]


@pytest.fixture
def run_jepa(capsys: pytest.CaptureFixture[str]) -> Jepa:
    def call(*arguments: object, fails: bool = False) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert ended.value.code == (2 if fails else 0), printed.err
        return printed.err if fails else printed.out

    return call


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compress") / "rooms"
    record(Recording("two-rooms", episodes=20, frames=16, image_size=SIDE), out)
    return out


@pytest.fixture(scope="module")
def model(rooms: Path) -> Path:
    """A folder with a video encoder of 16 tokens and random weights."""
    torch.manual_seed(0)
    config = from_dict(VIT, VideoViT.Config)
    seen = Preprocessing(SIDE, FPS, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), clip_frames=FRAMES)
    world = LatentWorldModel(build_encoder(config, SIDE, FRAMES), None, LatentSpec(16, 24, 2 / FPS, 2), seen)
    described = {"method": "vjepa", "encoder": config.model_dump(mode="json"), "frames": FRAMES}
    folder = rooms.parent / "model"
    checkpoint.save(folder, world, described | {"spec": vars(world.spec), "preprocessing": vars(seen)})
    return folder


@pytest.fixture(scope="module")
def small(rooms: Path, model: Path) -> Path:
    out = rooms.parent / "small"
    compress(model, out, CompressConfig(keep=(SMALL,), shards=str(rooms)))
    return out


def clips(rooms: Path) -> torch.Tensor:
    stream = StreamConfig(shards=str(rooms), batch_size=4, clip_frames=FRAMES)
    return next(iter(make_loader(stream, "train", seed=0, shuffle=False))).video


def test_the_folder_is_a_model_of_the_encoder_and_its_reduction(rooms: Path, model: Path, small: Path) -> None:
    loaded = jepa.load(small)
    encoder = loaded.encoder
    assert isinstance(encoder, CompressedEncoder)
    z = loaded.encode_clips(clips(rooms))
    assert z.shape == (4, FRAMES, 4, 6) and (loaded.spec.tokens, loaded.spec.width) == (4, 6)
    tokens = encoder.encoder(loaded.prepare_clips(clips(rooms)))
    pooled = tokens.view(4, FRAMES, 2, 2, 2, 2, 24).mean((3, 5)).flatten(2, 3)
    pca = encoder.chain.reductions[1]
    torch.testing.assert_close(z, (pooled - pca.mean) @ pca.basis / pca.scale, atol=1e-4, rtol=1e-4)
    original = jepa.load(model).encoder.state_dict()
    for name, weight in encoder.encoder.encoder.state_dict().items():
        torch.testing.assert_close(weight, original[name], rtol=0, atol=0)
    described = json.loads((small / "model.json").read_text())
    assert described["encoder"]["encoder_sha256"] == tensors_sha256(encoder.encoder)
    assert CompressionResult.read(small).encoder_sha256 == tensors_sha256(encoder.encoder)
    assert sorted(path.name for path in small.iterdir()) == ["compression.json", "model.json", "model.safetensors"]


def test_stored_latents_are_those_of_the_encoder_reduced(rooms: Path, model: Path, small: Path) -> None:
    tokenize(str(rooms), rooms.parent / "latents", str(small))
    tokenize(str(rooms), rooms.parent / "whole", str(model))
    shards = ShardSet.open(rooms)
    sample = shards.samples[0]
    stored, whole = (
        torch.from_numpy(
            Latents.open(rooms.parent / name, shards.manifest).rows(sample.shard, sample.key, np.arange(16))
        )
        for name in ("latents", "whole")
    )
    encoder = jepa.load(small).encoder
    assert isinstance(encoder, CompressedEncoder)
    assert whole.shape == (16, 16, 24) and stored.shape == (16, 4, 6)
    torch.testing.assert_close(stored, encoder.chain(whole), rtol=0.05, atol=0.1)  # both rounded to bf16


def test_the_report_stands_beside_the_original_latents(rooms: Path, model: Path, run_jepa: Jepa) -> None:
    out = rooms.parent / "several"
    keep = ("pool:1x1", "merge:4", "pca:24", "joint_pca:20")
    printed = run_jepa("compress", model, out, "--shards", rooms, *(word for each in keep for word in ("--keep", each)))
    result = CompressionResult.read(out)
    assert list(result.latents) == ["original", *keep] and "uncertain" in printed
    assert [each.numbers for each in result.latents.values()] == [384, 24, 96, 384, 20]
    assert [each.bytes_per_frame for each in result.latents.values()] == [768, 48, 192, 768, 40]
    assert {"state_r2", "state.agent.x", "state.agent.y", "class.room.linear.accuracy"} <= set(result.scores)
    assert set(result.scores["state.agent.x"]) == {"original", *keep, "floor"}
    kept = {name: each.variance_kept for name, each in result.latents.items()}
    assert kept["original"] == 1 and kept["pca:24"] == pytest.approx(1, abs=1e-4)
    assert 0 < kept["pool:1x1"] < kept["merge:4"] < 1
    score = result.scores["state.agent.x"]
    assert result.loss("state.agent.x", "merge:4") == pytest.approx(score["original"] - score["merge:4"])
    for name in keep:
        folder = result.latents[name].folder
        assert folder is not None and f"{out / folder}: latents" in printed
        assert jepa.load(out / folder).spec.tokens == result.latents[name].tokens
    for line in ("tokens x width", "bytes a frame, bf16", "variance kept", "R² agent.x", "accuracy room"):
        assert line in printed
    encoder = jepa.load(out / "merge-4").encoder
    assert isinstance(encoder, CompressedEncoder)
    tokens = encoder.encoder(jepa.load(model).prepare_clips(clips(rooms)))
    assert variance_kept(tokens, encoder.chain.expand(encoder.chain(tokens))) > 0.1
    assert encoder.feature_map(jepa.load(model).prepare_clips(clips(rooms))).shape == (4, FRAMES, 4, 4, 24)


def test_a_probe_of_the_folder_and_dynamics_on_its_stored_latents_need_nothing_else(
    rooms: Path, small: Path, tmp_path: Path, run_jepa: Jepa
) -> None:
    probed = tmp_path / "probed"
    run_jepa("probe", small, f"shards={rooms}", "classifiers=[{kind: linear}]", "clips_per_video=1", "--out", probed)
    assert (probed / "probe.json").is_file()
    run_jepa("embed", rooms, "--model", small, "--out", tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz", allow_pickle=False) as features:
        assert features["episode-000000"].shape == (16, 4, 6)
    run_jepa("data", "tokenize", rooms, tmp_path / "latents", "--model", small)
    config, run = tmp_path / "train.yaml", tmp_path / "run"
    config.write_text(
        f"run: {run}\ndata: {{shards: {rooms}, batch_size: 4, clip_frames: 4}}\ntrainer: {{steps: 2, device: cpu}}\n"
        f"method: {{kind: latent_dynamics, encoder_from: {small}, latents_from: {tmp_path / 'latents'},\n"
        "  predictor: {kind: causal, hidden: 32, depth: 1, heads: 2}}\n"
    )
    run_jepa("pretrain", config)
    assert jepa.load(run).dynamics is not None and jepa.load(run).spec.tokens == 4


def test_what_is_compressed_is_compressed_again(rooms: Path, small: Path) -> None:
    out = rooms.parent / "smaller"
    result = jepa.compress(small, out, None, ["keep=['joint_pca:5']", f"shards={rooms}"])
    encoder = jepa.load(out).encoder
    assert isinstance(encoder, CompressedEncoder)
    assert [each.short for each in encoder.config.reductions] == ["pool:2x2", "pca:6", "joint_pca:5"]
    assert (result.latents["original"].tokens, result.latents["joint_pca:5"].tokens) == (4, 1)


def test_a_report_alone_writes_no_models(rooms: Path, model: Path, tmp_path: Path, run_jepa: Jepa) -> None:
    out = tmp_path / "report"
    run_jepa("compress", model, out, f"shards={rooms}", "--keep", "pool:2x2", "--report-only", "train_episodes=8")
    assert [path.name for path in out.iterdir()] == ["compression.json"]
    assert CompressionResult.read(out).episodes["train"] == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--keep", "pool:3x3"], "keep: pool:3x3: expected rows and columns that divide the grid of 4x4 tokens evenly"),
        (["--keep", "merge:17"], "keep: merge:17: expected at most the 16 tokens that there are; choose fewer"),
        (["--keep", "pol:2x2"], "did you mean 'pool'"),
        (["--keep", "pca:4", "--keep", "pca:4"], "keep: expected each reduction once, found pca:4 twice"),
        (["--keep", "joint_pca:300"], "keep: joint_pca:300: expected more than 300 training latents to fit to"),
        ([], "'keep' is missing"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    words: list[str], message: str, rooms: Path, model: Path, tmp_path: Path, run_jepa: Jepa
) -> None:
    printed = run_jepa("compress", model, tmp_path / "out", "--shards", rooms, *words, fails=True)
    assert message in printed and printed.startswith("error: ") and printed.count("\n") == 1
    assert not (tmp_path / "out").exists(), "nothing is left behind"


def test_other_models_and_folders_are_refused(rooms: Path, model: Path, small: Path, tmp_path: Path) -> None:
    config = CompressConfig(keep=("pool:2x2",), shards=str(rooms))
    with pytest.raises(UserError, match="the folder is not empty; choose another one"):
        compress(model, small, config)
    with pytest.raises(UserError, match=r"a model without a run: say what to probe it on, shards=FOLDER"):
        compress(model, tmp_path / "a", CompressConfig(keep=("pool:2x2",)))
    with pytest.raises(UserError, match="no such folder; expected the folder of a run"):
        compress(str(tmp_path / "none"), tmp_path / "b", config)
