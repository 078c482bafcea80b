"""`jepa embed`: the three kinds of files hold the same latents, and the image shows what the encoder sees."""

import io
import itertools
import json
import sys
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import jepa
from jepa.cli import main
from jepa.config import UserError, from_dict
from jepa.encoders.frame import FrameEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.models import checkpoint
from jepa.models.build import build_encoder
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing
from jepa_data.curate.embeddings import read_embeddings
from jepa_data.errors import DataError
from jepa_data.shards.encode import encode_mp4
from jepa_data.sources.corpus import VIDEO_FILES
from jepa_probes.embedding.embed import draw, embed
from jepa_probes.embedding.pca import draw_features
from jepa_probes.embedding.write import EncodedVideo, kind_of, writer_of

SIDE, FPS = 32, 8.0
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def model_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    config = from_dict(
        {"kind": "video_vit", "patch": 8, "width": 24, "depth": 2, "heads": 2, "tubelet": 2}, VideoViT.Config
    )
    encoder = build_encoder(config, SIDE, 4)
    model = LatentWorldModel(encoder, None, LatentSpec(16, 24, 2 / FPS, 2), Preprocessing(SIDE, FPS, MEAN, STD))
    described = {
        "method": "none",
        "encoder": config.model_dump(mode="json"),
        "dynamics": None,
        "frames": 4,
        "spec": vars(model.spec),
        "preprocessing": vars(model.preprocessing),
    }
    checkpoint.save(folder, model, described)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def moving_square(frames: int, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """A bright square that goes from left to right over a dark ground."""
    g = np.random.default_rng(seed)
    video = np.full((frames, side, side, 3), 30, np.uint8) + g.integers(0, 4, (1, side, side, 3), dtype=np.uint8)
    for t in range(frames):
        left = round(t / max(frames - 1, 1) * (side - side // 4))
        video[t, side // 2 : side // 2 + side // 4, left : left + side // 4] = (250, 200, 40)
    return video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    (folder / "inner").mkdir()
    (folder / "b.mp4").write_bytes(encode_mp4(moving_square(12), FPS))
    (folder / "inner" / "a.mp4").write_bytes(encode_mp4(moving_square(9, 48, 1), FPS))
    (folder / "a.m2ts").write_bytes(b"no video")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def encoded(name: str, latents: np.ndarray) -> EncodedVideo:
    """Latents [K, S, N, D] as the encoder would give them, all at once."""
    return EncodedVideo(name, np.zeros(latents.shape[0] * latents.shape[1], np.float32), 0.5, iter([latents]))


def test_a_table_has_a_row_a_clip_with_the_mean_of_its_latents(
    model: Path, videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "deep" / "x.parquet"
    embed(videos, model, out, clip_frames=4)
    assert "left out: a.m2ts" in caplog.text and "2 file(s), 1 left out; a row for each of 5 clip(s)" in caplog.text
    rows = parquet.read_table(out).to_pylist()
    assert [(row["key"], row["start_seconds"], row["steps"]) for row in rows] == [
        ("b.mp4", 0.0, 2),
        ("b.mp4", 0.5, 2),
        ("b.mp4", 1.0, 2),
        ("inner/a.mp4", 0.0, 2),
        ("inner/a.mp4", 0.5, 2),  # nine frames: the last one fills no tubelet
    ]
    loaded = jepa.load(model)
    frames = loaded.read_video(videos / "b.mp4")
    for i in range(3):
        expected = loaded.encode(frames[:, 4 * i : 4 * i + 4]).mean((0, 1, 2))
        np.testing.assert_allclose(rows[i]["vector"], expected.numpy(), atol=1e-5)


def test_curation_reads_the_same_vectors_from_a_table_and_from_all_latents(
    model: Path, videos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    for name in ("x.npz", "x.parquet"):
        embed(videos, model, tmp_path / name, clip_frames=8)
    keys = ["inner/a.mp4", "absent", "b.mp4"]
    whole, pooled = (read_embeddings(str(tmp_path / name), keys) for name in ("x.npz", "x.parquet"))
    assert whole.there.tolist() == pooled.there.tolist() == [True, False, True]
    np.testing.assert_allclose(whole.vectors, pooled.vectors, atol=1e-5)
    assert np.abs(whole.vectors[0] - whole.vectors[2]).max() > 1e-3


def test_a_table_that_is_none_is_reported(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_embeddings(str(tmp_path / "x.parquet"), ["a"])
    for columns, words in (
        ({"key": ["a"], "steps": [1]}, "no column 'vector'"),
        ({"key": ["a"], "steps": [1], "vector": [[float("nan")]]}, "not finite"),
        ({"key": ["a", "b"], "steps": [1, 1], "vector": [[1.0], [1.0, 2.0]]}, "not a table that `jepa embed` wrote"),
        ({"key": ["b"], "steps": [1], "vector": [[1.0]]}, "holds 1 videos, none of these shards"),
    ):
        parquet.write_table(arrow.table(columns), tmp_path / "x.parquet")
        with pytest.raises(DataError, match=words):
            read_embeddings(str(tmp_path / "x.parquet"), ["a"])


def test_shards_hold_every_latent_and_webdataset_reads_them(
    model: Path, videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embed(videos, model, tmp_path / "x.npz")
    embed(videos, model, tmp_path / "shards")
    assert "latents [steps, 16, 24] every 0.25 s in 1 shard(s)" in caplog.text
    about = json.loads((tmp_path / "shards" / "features.json").read_text())
    assert about["samples"] == 2 and about["shards"] == [{"file": "features-000000.tar", "samples": 2}]
    with (
        np.load(tmp_path / "x.npz", allow_pickle=False) as table,
        tarfile.open(tmp_path / "shards" / "features-000000.tar") as tar,
    ):
        found = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # pyright: ignore
        keys = sorted({name.split(".")[0] for name in found})
        assert len(keys) == 2 and len(found) == 6
        for key in keys:
            name = json.loads(found[f"{key}.json"])["name"]
            for member, stored in (("latents", name), ("seconds", f"{name}.seconds")):
                array = np.load(io.BytesIO(found[f"{key}.{member}.npy"]), allow_pickle=False)
                np.testing.assert_array_equal(array, table[stored])


def test_the_same_latents_give_the_same_bytes_in_every_kind(model: Path, videos: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for name, file in (("npz", "{}.npz"), ("parquet", "{}.parquet"), ("shards", "{}/features-000000.tar")):
        first, second = (tmp_path / file.format(f"{name}{i}") for i in range(2))
        for path in (first, second):
            embed(videos, model, path.parent if name == "shards" else path, kind=name)
        assert first.read_bytes() == second.read_bytes()


def test_shards_are_closed_when_they_are_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepa_probes.embedding.write.SHARD_BYTES", 5000)
    with writer_of(tmp_path / "s", "shards") as writer:
        for i in range(5):
            writer.add(encoded(f"v{i}", np.ones((1, 2, 3, 50), np.float32)))
        assert "in 3 shard(s)" in writer.close()
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [
        *(f"features-{i:06d}.tar" for i in range(3)),
        "features.json",
    ]


def test_a_run_that_fails_leaves_nothing_behind(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "only_bad"
    source.mkdir()
    (source / "x.mp4").write_bytes(b"nothing")
    for out in (tmp_path / "x.npz", tmp_path / "shards"):
        with pytest.raises(UserError, match="none of its 1 videos and images"):
            embed(source, model, out)
    for name in ("y.npz", "y"):
        out = tmp_path / name
        with writer_of(out, kind_of(out, None)) as writer:
            assert writer.abandon() is None
    assert [path.name for path in tmp_path.iterdir()] == ["only_bad"]


def test_what_cannot_be_written_is_reported_before_the_model_is_read(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    for out, kind, words in (
        ("x.csv", None, "FILE.npz, FILE.parquet, a FOLDER for shards"),
        ("x.npz", "hdf5", "one of npz, parquet, shards"),
        ("full", None, "not an empty folder"),
        ("full", "npz", "a folder; npz is one file"),
    ):
        with pytest.raises(UserError, match=words):
            embed(videos, tmp_path / "no model", tmp_path / out, kind=kind)
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"pip install 'openjepa\[pack\]'"):
        embed(videos, tmp_path / "no model", tmp_path / "x.parquet")


def test_clips_cover_the_file_once_in_order(model: Path, tmp_path: Path) -> None:
    loaded = jepa.load(model)
    video = np.zeros((13, SIDE, SIDE, 3), np.uint8) + np.arange(0, 208, 16, dtype=np.uint8)[:, None, None, None]
    (tmp_path / "x.mp4").write_bytes(encode_mp4(video, FPS))
    for clip_frames, limit in itertools.product((None, 1, 4, 6, 200), (None, 9)):
        with loaded.open_video(tmp_path / "x.mp4") as file:
            parts = list(file.clips(clip_frames, limit))
        assert clip_frames is None or all(part.shape[1] <= clip_frames for part in parts)
        shown = torch.cat([part.flatten(0, 1) for part in parts]).float().mean((1, 2, 3))
        np.testing.assert_allclose(shown, 16 * np.arange(limit or 13), atol=6)


def test_clips_that_the_model_cannot_take_are_reported(model: Path, videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="multiples of 2 frames"):
        embed(videos, model, tmp_path / "x.npz", clip_frames=3)


def test_every_video_that_can_be_packed_is_looked_at(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    for ending in VIDEO_FILES:
        (folder / f"x.{ending.upper()}").write_bytes(encode_mp4(moving_square(4), FPS))
    embed(folder, model, tmp_path / "x.npz")
    assert f"{len(VIDEO_FILES)} file(s), 0 left out" in caplog.text


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_an_image_shows_the_input_and_beside_it_colors_that_follow_the_features(
    model: Path, videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(videos, model, tmp_path / "x.gif")
    assert "left out: a.m2ts" in caplog.text and "b.mp4, the first of 3 files; 6 steps" in caplog.text
    draw(videos / "b.mp4", model, tmp_path / "x.mp4", clip_frames=4)
    loaded = jepa.load(model)
    with loaded.open_video(videos / "b.mp4") as file:
        drawn = draw_features(loaded, file, 4)
    assert frames_of(tmp_path / "x.gif").shape == drawn.shape and len(drawn) == 6
    mp4 = frames_of(tmp_path / "x.mp4")
    assert len(mp4) == 6 and not any(side % 2 for side in mp4.shape[1:3])
    side = SIDE * round(144 / SIDE)
    features = drawn[:, -6 - side : -6, -6 - side : -6]  # four by four patches, each of one color
    cells = features.reshape(6, 4, side // 4, 4, side // 4, 3)
    assert (cells == cells[:, :, :1, :, :1]).all()
    assert features.std((0, 1, 2)).min() > 10  # all three components are used
    shown = drawn[:, -6 - side : -6, 6 : 6 + side]  # the input: the last frame of each step
    expected = loaded.read_video(videos / "b.mp4")[0, 1::2].permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(shown[:, :: side // SIDE, :: side // SIDE], expected)
    with loaded.open_video(videos / "b.mp4") as file:
        assert (draw_features(loaded, file, 4) == drawn).all()


def test_long_videos_are_drawn_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jepa_probes.embedding.pca.LONGEST", 3)
    (tmp_path / "x.mp4").write_bytes(encode_mp4(moving_square(10), FPS))
    draw(tmp_path / "x.mp4", model, tmp_path / "x.gif")
    assert "the first 3 of 5 steps" in caplog.text
    assert len(frames_of(tmp_path / "x.gif")) == 3


def test_latents_without_a_place_in_the_image_are_reported(videos: Path) -> None:
    encoder = FrameEncoder(FrameEncoder.Config(model="resnet10t", pretrained=False, output="pooled"), SIDE, 4)
    spec = LatentSpec(1, encoder.width, 1 / FPS, 1)
    pooled = LatentWorldModel(encoder, None, spec, Preprocessing(SIDE, FPS, MEAN, STD)).eval()
    with pooled.open_video(videos / "b.mp4") as file, pytest.raises(UserError, match="no place in the image"):
        draw_features(pooled, file, None)


def test_the_command_draws_or_writes_or_does_both(
    model: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, files, code in (
        (["--pca", "x.gif"], {"x.gif"}, 0),
        (["--pca", "x.gif", "--out", "y.npz"], {"x.gif", "y.npz"}, 0),
        (["--format", "shards", "--out", "z"], {"x.gif", "y.npz", "z"}, 0),
        (["--pca", "x.png"], {"x.gif", "y.npz", "z"}, 2),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["embed", str(videos / "b.mp4"), "--model", str(model), *arguments])
        assert ended.value.code == code
        assert {path.name for path in tmp_path.iterdir()} == files
    assert "ends in .gif or .mp4" in capsys.readouterr().err
