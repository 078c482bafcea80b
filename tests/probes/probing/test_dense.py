"""Masks, depth and keypoints, read off latents by ridge regression."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from jepa.config import UserError, from_dict
from jepa.encoders.video_vit import VideoViT
from jepa.models import checkpoint
from jepa.models.build import build_encoder
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing
from jepa_data.sources.rollouts import Recording, record
from jepa_data.spatial.kinds import SpatialInfo
from jepa_data.types import ClipBatch
from jepa_probes.probing.config import ProbeConfig
from jepa_probes.probing.dense.readout import agreement, dense_rows, token_of_cell
from jepa_probes.probing.dense.targets import DenseTargets
from jepa_probes.probing.features import Features
from jepa_probes.probing.probe import probe

MASK = SpatialInfo(kind="mask", shape=(8, 8), dtype="uint8", names=("floor", "wall"))
DEPTH = SpatialInfo(kind="depth", shape=(8, 8), dtype="float32")
POINTS = SpatialInfo(kind="keypoints", shape=(2, 3), dtype="float32")


def batch(**spatial: Tensor) -> ClipBatch:
    return ClipBatch(torch.zeros(1, 4, 3, 8, 8, dtype=torch.uint8), None, None, ("a",), torch.zeros(1), spatial=spatial)


def test_targets_are_those_of_the_last_frame_of_a_step() -> None:
    mask = torch.zeros(1, 4, 8, 8, dtype=torch.uint8)
    mask[0, 3, :4, :2] = 1  # half of the upper left of 2 x 2 cells
    depth = torch.full((1, 4, 8, 8), torch.nan)
    depth[0, 1, :4, :4] = 5
    points = torch.tensor([[3.0, 4.0, 1.0], [6.0, 7.0, 0.0]]).expand(1, 4, 2, 3)
    made = DenseTargets.of((MASK, DEPTH, POINTS), 2)(batch(mask=mask, depth=depth, keypoints=points), 2)
    assert made["mask"].shape == (1, 2, 8)
    torch.testing.assert_close(made["mask"][0, 1], torch.tensor([0.5, 0.5, 1, 0, 1, 0, 1, 0]))
    assert made["depth"][0, 0, 0] == 5 and made["depth"][0, 0, 1:].isnan().all() and made["depth"][0, 1].isnan().all()
    assert made["keypoints"][0, 0, :2].tolist() == [3, 4] and made["keypoints"][0, 0, 2:].isnan().all()
    with pytest.raises(UserError, match="classes have names"):
        DenseTargets.of((MASK.model_copy(update={"names": ()}),), 2)


def test_cells_read_the_token_that_covers_them() -> None:
    assert token_of_cell(1, 4) is None and token_of_cell(6, 4) is None
    tokens = token_of_cell(4, 4)
    assert tokens is not None and tokens.view(4, 4).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    answer, truth = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    assert agreement(answer, truth, 3) == (0.75, pytest.approx((1 / 2 + 2 / 3) / 2))


def clips(episodes: int, seed: int, informed: bool) -> Features:
    """16 tokens, of which each knows its own class and depth, if any does."""
    g = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, 2, (episodes, 3, 16), generator=g)
    depth = torch.rand(episodes, 3, 16, generator=g)
    latents = torch.randn(episodes, 3, 16, 6, generator=g)
    if informed:
        latents[..., 0] += 20 * classes
        latents[..., 1] += 20 * depth
    shares = torch.nn.functional.one_hot(classes, 2).float().flatten(2)
    points = latents[:, :, :2, 2:4].flatten(2) if informed else torch.rand(episodes, 3, 4, generator=g)
    keys = tuple(f"{seed}-{i}" for i in range(episodes))
    return Features(
        latents,
        torch.empty(episodes, 3, 0),
        {},
        keys,
        (),
        spatial={"mask": shares, "depth": depth, "keypoints": points},
    )


@pytest.mark.parametrize("informed", [True, False])
def test_what_tokens_know_of_their_cells_is_read_off_them(informed: bool) -> None:
    targets = DenseTargets.of((MASK, DEPTH, POINTS), 4)
    table = {"pretrained": (clips(40, 0, informed), clips(20, 1, informed))}
    rows = dense_rows(table, targets, "floor", seed=0)
    assert rows["floor"].keys() == rows["pretrained"].keys()
    read = {name: value or 0.0 for name, value in rows["pretrained"].items()}
    floor = {name: value or 0.0 for name, value in rows["floor"].items()}
    if informed:
        assert read["spatial.mask.accuracy"] > 0.99 and read["spatial.mask.miou"] > 0.98
        assert read["spatial.depth.r2"] > 0.9 and read["spatial.depth.error"] < 0.5 * floor["spatial.depth.error"]
        assert read["spatial.keypoints.r2"] > 0.9
        assert read["spatial.keypoints.pixels"] < 0.5 * floor["spatial.keypoints.pixels"]
    else:
        assert read["spatial.mask.accuracy"] < 0.6 and read["spatial.depth.r2"] < 0.1


def test_jepa_probe_scores_the_truth_of_a_world(tmp_path: Path) -> None:
    record(Recording("two-rooms", 12, frames=8, image_size=32, spatial=("mask", "keypoints")), tmp_path / "shards")
    config = VideoViT.Config(patch=8, tubelet=2, width=16, depth=1, heads=2)
    torch.manual_seed(0)
    spec, seen = LatentSpec(16, 16, 0.2, 2), Preprocessing(32, 10.0, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    model = LatentWorldModel(build_encoder(config, 32, 8), None, spec, seen)
    described = {
        "method": "none",
        "encoder": config.model_dump(mode="json"),
        "dynamics": None,
        "frames": 8,
        "spec": vars(spec),
        "preprocessing": vars(seen),
    }
    checkpoint.save(tmp_path / "model", model, described)
    wanted = {"shards": str(tmp_path / "shards"), "supervised": False, "labels": [], "classifiers": []}
    result = probe(tmp_path / "model", from_dict(wanted | {"spatial": ["mask", "keypoints"]}, ProbeConfig))
    rows = {name: row for name, row in result.scores.items() if name.startswith("spatial.")}
    assert set(rows) == {f"spatial.{x}" for x in ("mask.accuracy", "mask.miou", "keypoints.r2", "keypoints.pixels")}
    columns = {"pretrained", "random_init", "pixels", "pca_pixels", "floor"}
    assert all(set(row) == columns for row in rows.values())
    assert all(0 <= (row["pretrained"] or 0) <= 1 for name, row in rows.items() if ".mask." in name)
    # Features are stored, and are the same when they are read again; without dense probes there are no such rows.
    again = probe(tmp_path / "model", from_dict(wanted | {"spatial": ["mask", "keypoints"]}, ProbeConfig))
    assert again.scores == result.scores
    plain = probe(tmp_path / "model", from_dict(wanted, ProbeConfig))
    assert plain.scores == {name: row for name, row in result.scores.items() if name not in rows}
