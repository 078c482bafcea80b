"""The stage `denoise`: less noise, the same frames at the same times, and nothing changed without it."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepa.config import ConfigError
from jepa_data.curate import Curated, curate
from jepa_data.curate.config import Denoise
from jepa_data.decode import VideoIndex, get_backend
from jepa_data.denoise import decibels, denoise, filtered
from jepa_data.shards.encode import Mp4Encoder, encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.write import ShardWriter
from tests.data.curate_cases import blurred, described, members, png, textured

FRAMES = 12
SIGMA = 6.0
METHODS = {"nlmeans": 4.0, "median": 1.0, "temporal": 6.0}


def still_life(frames: int = FRAMES) -> np.ndarray:
    """A camera that stands before soft shapes, one of which moves: [T, 64, 64, 3]."""
    images = np.full((frames, 64, 64, 3), 90, np.uint8)
    images[:, 10:30, 8:40] = (200, 60, 40)
    images[:, 40:60, 30:60] = (30, 160, 220)
    for t in range(frames):
        images[t, 32:40, 2 * t : 2 * t + 10] = 240
    return blurred(images, 1.5)


def noisy(images: np.ndarray) -> np.ndarray:
    return np.clip(images + np.random.default_rng(0).normal(0, SIGMA, images.shape), 0, 255).round().astype(np.uint8)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return decibels(float(np.square(one.astype(float) - other).mean()))


def stage(**changes: Any) -> Denoise:
    return Denoise.model_validate(changes)


@pytest.mark.parametrize("method", METHODS)
def test_noise_is_taken_out_and_clean_video_loses_little(method: str) -> None:
    clean = still_life()
    wanted = stage(method=method, strength=METHODS[method])
    cleaner = np.stack(list(filtered([noisy(clean)[:5], noisy(clean)[5:]], wanted)))
    assert cleaner.shape == clean.shape
    assert psnr(cleaner, clean) > psnr(noisy(clean), clean) + 2
    assert psnr(np.stack(list(filtered([clean], wanted))), clean) > 34
    again = np.stack(list(filtered([noisy(clean)], wanted)))
    np.testing.assert_array_equal(again, cleaner)


def test_times_of_frames_stay_also_where_they_are_uneven() -> None:
    clean = still_life()
    ticks = np.cumsum([0, 1, 1, 3, 1, 1, 1, 2, 1, 1, 1, 1]) * 40
    times = VideoIndex(ticks, Fraction(1, 1000), np.array([0]), 64, 64, 0, "h264", 20.0)
    with Mp4Encoder(64, 64, 20.0, crf=10, times=times) as encoder:
        encoder.add(noisy(clean))
        video = encoder.finish()
    backend = get_backend("pyav")
    with backend.open(video) as reader:
        before = reader.index
        data, change = denoise(reader, stage())
    after = backend.probe(data)
    np.testing.assert_allclose(before.seconds, ticks / 1000, atol=1e-4)
    np.testing.assert_allclose(after.seconds, before.seconds, atol=1e-4)
    assert 0 < change < 4 * SIGMA**2
    with backend.open(data) as reader:
        assert psnr(reader.frames(range(FRAMES)), clean) > psnr(noisy(clean), clean) + 2


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("noisy") / "shards"
    with ShardWriter(
        out, fps=10.0, image_size=64, world=None, action_size=1, state_names=["x"], label_names=[], seed=0
    ) as writer:
        for number, images in enumerate((noisy(still_life()), noisy(textured(3, FRAMES)))):
            rows = np.arange(FRAMES, dtype=np.float32)[:, None] + number
            about = {"caption": "a", "labels": {}}
            writer.write("train", f"v{number}", encode_mp4(images, 10, crf=6), FRAMES, rows[1:], rows, about)
        one = np.zeros((1, 1), np.float32)
        image = png(still_life(1)[0])
        writer.write("test", "image", image, 1, one[:0], one, {"labels": {}}, ending="png")
    return out


def curated(shards: Path, out: Path, *stages: dict[str, Any], processes: int = 0) -> Curated:
    return curate(shards, out, described(*stages), processes=processes)


def test_videos_are_encoded_again_and_everything_else_stays(shards: Path, tmp_path: Path) -> None:
    before = members(shards)
    result = curated(shards, tmp_path / "a", {"kind": "denoise"})
    assert result.denoised is not None and result.denoised.videos == 2 and not result.denoised.left
    assert result.denoised.change_db is not None and 25 < result.denoised.change_db < 60
    assert any("2 videos are encoded again; the mean change is" in line for line in result.lines())
    assert json.loads((tmp_path / "a" / "curation.json").read_text())["denoised"]["videos"] == 2
    after = members(tmp_path / "a")
    assert after["image"] == before["image"]
    for key in ("v0", "v1"):
        for member in ("actions.npy", "states.npy", "metadata.json"):
            assert after[key][member] == before[key][member]
        assert after[key]["mp4"] != before[key]["mp4"]
    for old, new in zip(ShardSet.open(shards).samples, ShardSet.open(tmp_path / "a").samples, strict=True):
        assert (old.key, old.split, old.frames) == (new.key, new.split, new.frames)
        assert old.video is not None and new.video is not None
        assert [old.video[k] for k in ("fps", "width", "height")] == [new.video[k] for k in ("fps", "width", "height")]
    assert members(shards) == before
    curated(shards, tmp_path / "b", {"kind": "denoise"}, processes=2)
    assert (tmp_path / "a" / "train-000000.tar").read_bytes() == (tmp_path / "b" / "train-000000.tar").read_bytes()


def test_without_the_stage_no_pixel_changes(shards: Path, tmp_path: Path) -> None:
    result = curated(shards, tmp_path / "a", {"kind": "too_short", "min_frames": 2})
    assert result.denoised is None and "denoised" not in json.loads((tmp_path / "a" / "curation.json").read_text())
    assert members(tmp_path / "a") == members(shards)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="one denoise stage at most"):
        described({"kind": "denoise"}, {"kind": "denoise", "method": "median", "strength": 1})
    with pytest.raises(ConfigError, match="radius, 1 to 9 pixels; found 12"):
        described({"kind": "denoise", "method": "median", "strength": 12})
