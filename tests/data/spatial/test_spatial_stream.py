"""Masks and keypoints from the worlds' truth: recorded, streamed at the frames of clips, kept by every command."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jepa.config import from_dict
from jepa_data.config import StreamConfig
from jepa_data.curate import curate
from jepa_data.errors import DataError, DecodeError
from jepa_data.inspect.check import check
from jepa_data.inspect.index import index
from jepa_data.pack.pack import Packing, open_corpus, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Manifest
from jepa_data.shards.read import ShardFiles, read_spatial
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.loader import ClipLoader, make_loader
from jepa_data.transforms import spatial_to_input, to_input, zero_to_one
from jepa_data.types import ClipBatch
from jepa_data.worlds import make_batch
from tests.data.curate_cases import described

KINDS = ("mask", "keypoints")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Push-T with its truth; not to be changed."""
    out = tmp_path_factory.mktemp("spatial") / "shards"
    record(Recording("push-t", 6, frames=40, policy="pusher", spatial=KINDS), out)
    return out


def loader(folder: Path, split: str = "train", **changes: Any) -> ClipLoader:
    config = {"shards": str(folder), "batch_size": 4, "clip_frames": 8, "spatial": list(KINDS)}
    return make_loader(from_dict(config | changes, StreamConfig), split, seed=0, total_batches=4)


def arrays(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    opened = ShardSet.open(folder)
    files = ShardFiles(folder)
    return {s.key: read_spatial(files, s, opened.manifest.spatial, s.frames) for s in opened.samples}


def blue(video: torch.Tensor) -> torch.Tensor:
    """Where a clip [..., 3, h, w] in 0..1 shows the pusher."""
    return (video[..., 2, :, :] > 0.6) & (video[..., 0, :, :] < 0.5)


def test_truth_is_what_the_world_computes_and_images_show_it(shards: Path) -> None:
    world = make_batch("push-t", np.arange(6))
    first = arrays(shards)["episode-000002"]
    np.testing.assert_array_equal(first["mask"][0], world.spatial("mask")[2])
    np.testing.assert_array_equal(first["keypoints"][0], world.spatial("keypoints")[2])
    image = torch.from_numpy(world.render()).permute(0, 3, 1, 2) / 255
    assert (blue(image) == torch.from_numpy(world.spatial("mask") == 2)).float().mean() > 0.99


@pytest.mark.parametrize("name", ["billiards-medium", "billiards-flicker", "two-rooms-random-wall", "push-t"])
def test_bodies_lie_where_their_keypoints_are(name: str) -> None:
    world = make_batch(name, np.arange(12))
    names = {info.kind: info.names for info in world.spatial_infos}
    mask, points = world.spatial("mask"), world.spatial("keypoints")
    for info in world.spatial_infos:
        assert info.problem(world.spatial(info.kind), 12) is None
    for column, body in enumerate(names["keypoints"]):
        if body not in names["mask"]:
            continue
        number = names["mask"].index(body)
        for episode in np.flatnonzero(points[:, column, 2]):
            rows, columns = np.nonzero(mask[episode] == number)
            if len(rows) < 40 and name.startswith("billiards"):
                continue  # half under the band
            middle = np.array([columns.mean(), rows.mean()]) + 0.5
            assert np.abs(middle - points[episode, column, :2]).max() < 2.0  # pixels; the band may hide a part


def test_clips_carry_the_arrays_of_their_own_frames(shards: Path) -> None:
    whole = arrays(shards)
    for batch in loader(shards, stride=3, start="random"):
        assert batch.spatial["mask"].dtype == torch.uint8
        assert batch.spatial["mask"].shape == (4, 8, 64, 64) and batch.spatial["keypoints"].shape == (4, 8, 9, 3)
        for row, key in enumerate(batch.keys):
            start = round(float(batch.start_seconds[row]) * 10)
            for kind in KINDS:
                np.testing.assert_array_equal(
                    batch.spatial[kind][row].numpy(), whole[key][kind][start : start + 24 : 3]
                )


def test_the_stream_is_the_same_with_and_without_them_for_any_workers(shards: Path) -> None:
    plain = list(loader(shards, spatial=[], clips_per_video=2))
    for workers in (0, 2):
        changes = {"clips_per_video": 2, "workers": workers, "worker_kind": "thread"}
        batches = list(loader(shards, **changes))
        for one, other in zip(plain, batches, strict=True):
            assert one.keys == other.keys and torch.equal(one.video, other.video) and not one.spatial
        if workers:
            for one, other in zip(batches, loader(shards, clips_per_video=2), strict=True):
                assert all(torch.equal(one.spatial[kind], other.spatial[kind]) for kind in KINDS)
    resumed = loader(shards, clips_per_video=2)
    resumed.load_state_dict({"batch": 2})
    assert torch.equal(next(iter(resumed)).spatial["mask"], batches[2].spatial["mask"])


def aligned(video: torch.Tensor, spatial: dict[str, torch.Tensor]) -> None:
    """The pusher's pixels are those of its class, and its keypoint is among them."""
    pusher = spatial["mask"] == 2
    assert pusher.any() and (blue(video) == pusher).float().mean() > 0.97
    points = spatial["keypoints"][:, :, 0]
    for clip, frame in (points[..., 2] == 1).nonzero().tolist():
        x, y = points[clip, frame, :2].tolist()
        near = pusher[clip, frame, max(0, int(y) - 1) : int(y) + 2, max(0, int(x) - 1) : int(x) + 2]
        assert near.any()


def test_random_crops_of_the_decoder_move_all_alike(shards: Path) -> None:
    for batch in loader(shards, image_size=64, crop={"scale": [0.4, 0.9]}):
        aligned(batch.video.float() / 255, batch.spatial)


def test_crops_and_mirror_images_on_the_device_move_all_alike(shards: Path) -> None:
    augment = {"crop": {"scale": [0.4, 0.9]}, "flip": 0.5}
    flows = loader(shards, augment=augment)
    for batch in flows:
        aligned(zero_to_one(to_input(batch, flows.config.augment)), spatial_to_input(batch, flows.config.augment))
    with pytest.raises(ValueError, match="poses are in the world"):
        from_dict(
            {"shards": "x", "batch_size": 1, "clip_frames": 1, "spatial": ["pose"], "augment": augment}, StreamConfig
        )


def test_a_kind_that_the_shards_do_not_have_is_named(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no depth\. They have: mask, keypoints"):
        loader(shards, spatial=["depth"])
    with pytest.raises(DataError, match="push-t computes mask, keypoints, found 'depth'"):
        record(Recording("push-t", 2, spatial=("depth",)), tmp_path / "s")


def test_shards_without_them_have_the_manifest_they_always_had(shards: Path, tmp_path: Path) -> None:
    record(Recording("push-t", 6, frames=40, policy="pusher"), tmp_path / "plain")
    text = (tmp_path / "plain" / "manifest.json").read_text()
    assert "spatial" not in text and "spatial" not in Manifest.from_file(text).model_dump_json()
    assert ShardSet.open(shards).manifest.spatial[0].text() == "mask 64x64 uint8 (table, block, agent)"
    ours, plain = (list(ShardSet.open(folder).samples) for folder in (shards, tmp_path / "plain"))
    assert [sample.crc32 for sample in ours] == [sample.crc32 for sample in plain]


def test_curating_packing_and_indexing_keep_them(shards: Path, tmp_path: Path) -> None:
    before = arrays(shards)
    curate(shards, tmp_path / "curated", described({"kind": "too_short", "min_frames": 2}), processes=0)
    pack(open_corpus(shards), tmp_path / "packed", Packing(Recipe(short_side=32, fps=5.0)), processes=1)
    shutil.copytree(shards, tmp_path / "indexed", ignore=lambda _, names: [n for n in names if not n.endswith(".tar")])
    index(tmp_path / "indexed", workers=1)
    for name, after in ((name, arrays(tmp_path / name)) for name in ("curated", "indexed")):
        assert after.keys() == before.keys()
        for key, kinds in after.items():
            assert all((kinds[kind] == before[key][kind]).all() for kind in KINDS), name
    for key, kinds in arrays(tmp_path / "packed").items():
        np.testing.assert_array_equal(kinds["mask"], before[key]["mask"][::2])
        np.testing.assert_allclose(kinds["keypoints"][..., :2], before[key]["keypoints"][::2, :, :2] / 2, rtol=1e-6)
    batch: ClipBatch = next(iter(loader(tmp_path / "packed")))
    aligned(batch.video.float() / 255, batch.spatial)


def test_damage_is_found_by_check_and_by_the_stream(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(shards, folder)
    sample = next(iter(ShardSet.open(folder).samples))
    offset, size = sample.members["mask.npz"]
    data = bytearray((folder / sample.shard).read_bytes())
    data[offset + size // 2] ^= 0xFF
    (folder / sample.shard).write_bytes(data)
    findings = check(folder, workers=1).findings
    assert [(f.key, f.kind) for f in findings if f.key] == [(sample.key, "mask.npz")]
    with pytest.raises(DecodeError, match=r"mask\.npz cannot be read"):
        arrays(folder)
    batches = loader(folder, max_bad_fraction=1.0)
    assert all(sample.key not in batch.keys for batch in batches)
    assert sample.key in batches.bad
    assert sample.key in {key for batch in loader(folder, spatial=["keypoints"]) for key in batch.keys}


def test_a_mix_needs_the_same_keypoints(shards: Path, tmp_path: Path) -> None:
    record(Recording("two-rooms", 3, spatial=KINDS), tmp_path / "rooms")
    mix = [{"shards": str(shards)}, {"shards": str(tmp_path / "rooms")}]
    config = {"shards": mix, "batch_size": 2, "clip_frames": 4, "spatial": ["keypoints"]}
    with pytest.raises(DataError, match="different keypoints"):
        make_loader(from_dict(config, StreamConfig), "train", seed=0)
    assert json.loads((tmp_path / "rooms" / "manifest.json").read_text())["spatial"][1]["names"] == ["agent", "door"]
