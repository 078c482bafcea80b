"""The range, mean and deviation of actions: in the manifest of whatever wrote the shards, and read where it is not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepa_data.actions import ActionStats, assumed, mixed
from jepa_data.config import StreamConfig
from jepa_data.curate.config import CurateConfig, TooShort
from jepa_data.curate.run import curate
from jepa_data.pack.pack import Packing, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Manifest
from jepa_data.shards.read import ShardFiles, read_npy
from jepa_data.shards.write import ShardWriter
from jepa_data.sources.repack import read_shards
from jepa_data.stream.action_stats import action_stats
from jepa_data.stream.loader import make_loader
from tests.edited import write_edited

FRAMES = 9


def pixels(out: Path, count: int = 8, *, resume: bool = False, stop: int | None = None) -> None:
    """Episodes whose actions are places in an image of 512 pixels; the second number never changes."""
    video = encode_mp4(np.zeros((FRAMES, 32, 32, 3), np.uint8), 10)
    about: dict[str, Any] = {"fps": 10, "image_size": 32, "world": None, "seed": 0, "label_names": ()}
    writer = ShardWriter(out, **about, action_size=2, state_names=(), shard_bytes=4000, resume=resume)
    for number in range(count):
        if number == stop:
            raise KeyboardInterrupt
        if f"e{number}" in writer.done:
            continue
        actions = np.random.default_rng(number).uniform(0, 512, (FRAMES - 1, 2)).astype(np.float32)
        actions[:, 1] = 300.25
        writer.write("test" if number % 4 == 3 else "train", f"e{number}", video, FRAMES, actions, None, {})
    writer.close()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    pixels(tmp_path / "pixels")
    return tmp_path / "pixels"


def rows(folder: Path, split: str | None = None) -> np.ndarray:
    opened, files = ShardSet.open(folder), ShardFiles(folder)
    found = [
        read_npy(files.read(sample)["actions.npy"], sample.frames - 1)
        for sample in opened.samples
        if split in (None, sample.split)
    ]
    return np.concatenate(found).astype(np.float64)


def stats(folder: Path) -> ActionStats:
    found = Manifest.from_file((folder / "manifest.json").read_text()).actions
    assert found is not None
    return found


def check(found: ActionStats, folder: Path) -> None:
    every, trained = rows(folder), rows(folder, "train")
    np.testing.assert_array_equal(found.low, every.min(0))
    np.testing.assert_array_equal(found.high, every.max(0))
    np.testing.assert_allclose(found.mean, trained.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std, trained.std(0), rtol=1e-6, atol=1e-9)
    assert found.origin == "data"


def test_the_manifest_tells_the_range_of_all_actions_and_the_deviation_of_those_trained_on(shards: Path) -> None:
    check(stats(shards), shards)
    assert stats(shards).high[0] > 400 and stats(shards).std[1] == 0


def test_a_recording_that_was_interrupted_tells_the_same(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pixels(tmp_path / "resumed", stop=5)
    pixels(tmp_path / "resumed", resume=True)
    assert (tmp_path / "resumed/manifest.json").read_text() == (shards / "manifest.json").read_text()


def test_a_world_declares_its_range_also_where_a_recording_uses_less(corpus: Path) -> None:
    found = stats(corpus)
    assert (found.low, found.high, found.origin) == ((-1.0, -1.0), (1.0, 1.0), "world")
    assert np.abs(rows(corpus)).max() < 1 and 0 < max(found.std) < 1


def test_shards_of_an_earlier_version_are_read_for_it(shards: Path, corpus: Path) -> None:
    def without(folder: Path) -> ActionStats:
        described = json.loads((folder / "manifest.json").read_text())
        before = described.pop("actions")
        write_edited(folder / "manifest.json", described)
        found = action_stats(loader(folder))
        (folder / "manifest.json").write_text(json.dumps(described | {"actions": before}, indent=2) + "\n")
        return found

    found, trained = without(shards), rows(shards, "train")
    np.testing.assert_array_equal((found.low, found.high), (trained.min(0), trained.max(0)))
    np.testing.assert_allclose(found.std, trained.std(0), rtol=1e-6, atol=1e-4)
    world = without(corpus)
    assert (world.low, world.origin) == ((-1.0, -1.0), "world")
    np.testing.assert_allclose(world.std, stats(corpus).std, rtol=1e-5)


def loader(folder: Path):
    data = {"shards": str(folder), "batch_size": 2, "clip_frames": 4}
    return make_loader(StreamConfig.model_validate(data), "train", seed=0)


def test_actions_packed_side_by_side_keep_their_range(shards: Path, tmp_path: Path) -> None:
    recipe = Recipe(fps=5.0, max_seconds=None)
    pack(read_shards(shards), tmp_path / "half", Packing(recipe), processes=1)
    check(stats(tmp_path / "half"), tmp_path / "half")
    found, raw = stats(tmp_path / "half"), stats(shards)
    assert found.width == 4 and found.resized(2).low == raw.low and found.resized(2).high == raw.high
    np.testing.assert_allclose(found.resized(2).mean, raw.mean, rtol=1e-6)
    np.testing.assert_allclose(found.resized(2).std, raw.std, rtol=1e-4)


def test_curated_shards_tell_of_what_stayed(shards: Path, tmp_path: Path) -> None:
    curate(shards, tmp_path / "curated", CurateConfig(stages=(TooShort(min_frames=2),)), processes=0)
    check(stats(tmp_path / "curated"), tmp_path / "curated")


def test_statistics_serve_actions_side_by_side_and_are_mixed_as_sources_are() -> None:
    one = ActionStats(low=(0.0, -1.0), high=(512.0, 1.0), mean=(256.0, 0.0), std=(100.0, 0.5))
    assert one.resized(4).high == (512.0, 1.0, 512.0, 1.0) and one.resized(4).resized(2).std == one.std
    with pytest.raises(ValueError, match="statistics of 2 numbers do not fit actions 3 wide"):
        one.resized(3)
    both = mixed([one, assumed(2)], [3.0, 1.0])
    assert (both.low, both.high, both.mean) == ((-1.0, -1.0), (512.0, 1.0), (192.0, 0.0))
    draws = np.concatenate([np.array([156.0, 356.0] * 3), np.array([-1.0, 1.0])])  # mean and std of both sources
    np.testing.assert_allclose(both.std[0], draws.std())
    with pytest.raises(ValueError, match="low <= high"):
        ActionStats(low=(1.0,), high=(0.0,), mean=(0.5,), std=(0.1,))
