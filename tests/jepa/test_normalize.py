"""Actions and states of any scale: standardized inside the model by what it was trained on, raw everywhere else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import jepa
from jepa.config import UserError, from_dict
from jepa.encoders.video_vit import VideoViT
from jepa.models import meta, meta_ac
from jepa.normalize import NormalizationStats, Standardize, standardize
from jepa.planners.cem import CEM
from jepa.planners.cost import goal_distance
from jepa.predictors.causal import CausalPredictor
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa.world_model import LatentWorldModel, rollout
from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import METADATA
from jepa_data.shards.read import ShardFiles, read_npy
from jepa_data.shards.write import ShardWriter
from jepa_data.stream.action_stats import _joined, spread
from jepa_data.stream.loader import make_loader

pytestmark = pytest.mark.usefixtures("one_thread")
FACTOR, SHIFT = 100.0, 30.0


@pytest.fixture(scope="module")
def scaled(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same corpus, its actions in other units: 100 a + 30."""
    folder, shards = tmp_path_factory.mktemp("scaled") / "shards", ShardSet.open(corpus)
    about, files = shards.manifest, ShardFiles(shards.store)
    writer = ShardWriter(
        folder,
        fps=about.fps,
        image_size=about.image_size,
        world=about.world,
        action_size=about.action_size,
        state_names=about.state_names,
        label_names=about.label_names,
        seed=about.seed,
    )
    with writer:
        for sample in shards.samples:
            members = files.read(sample)
            actions = FACTOR * read_npy(members["actions.npy"], sample.frames - 1) + SHIFT
            states = read_npy(members["states.npy"], sample.frames)
            metadata = json.loads(members[METADATA])
            writer.write(sample.split, sample.key, members["mp4"], sample.frames, actions, states, metadata)
    return folder


def loader(shards: Any, **changes: Any):
    data = {"shards": str(shards) if isinstance(shards, Path) else shards, "batch_size": 4, "clip_frames": 8} | changes
    return make_loader(StreamConfig.model_validate(data), "train", seed=0, shuffle=False)


def everything(shards: Path, name: str) -> np.ndarray:
    """All rows of the training split, read one by one."""
    opened = ShardSet.open(shards)
    files = ShardFiles(opened.store)
    rows = [
        read_npy(files.read(sample)[name], sample.frames - (name == "actions.npy"))
        for sample in opened.samples
        if sample.split == "train"
    ]
    return np.concatenate(rows).astype(np.float64)


def test_numbers_come_out_at_zero_mean_and_unit_variance_and_back() -> None:
    x = torch.randn(500, 3) * torch.tensor([0.1, 1.0, 50.0]) + torch.tensor([0.0, -3.0, 7.0])
    scale = Standardize(6)
    twice = torch.cat([x, x], -1)
    assert torch.equal(scale(twice), twice), "before it is fitted"
    scale.fit(NormalizationStats(x.mean(0), x.std(0)))
    torch.testing.assert_close(scale(twice).mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(scale(twice).std(0), torch.ones(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(scale.inverse(scale(twice)), twice, atol=1e-4, rtol=1e-4)
    assert not list(standardize(6, False).state_dict()) and list(scale.state_dict()) == ["mean", "std"]


def test_what_does_not_vary_is_not_blown_up_and_what_does_not_fit_is_refused() -> None:
    scale = Standardize(2)
    scale.fit(NormalizationStats(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 2.0])))
    assert scale(torch.tensor([[3.5, 4.0]])).tolist() == [[0.5, 2.0]]
    with pytest.raises(ValueError, match="stats of 3 numbers do not fit the 2"):
        scale.fit(NormalizationStats(torch.zeros(3), torch.ones(3)))
    with pytest.raises(ValueError, match=r"missing \(NaN\)"):
        scale.fit(NormalizationStats(torch.tensor([0.0, torch.nan]), torch.ones(2)))


def test_moments_are_those_of_all_training_rows_without_the_videos(corpus: Path, scaled: Path) -> None:
    for folder in (corpus, scaled):
        for what in ("actions", "states"):
            rows, found = everything(folder, f"{what}.npy"), spread(loader(folder), what)
            np.testing.assert_allclose(found.mean, np.nanmean(rows, 0), atol=1e-6, rtol=1e-6)
            np.testing.assert_allclose(found.std, np.nanstd(rows, 0), atol=1e-5, rtol=1e-5)
            np.testing.assert_allclose(found.missing, np.isnan(rows).mean(0), atol=1e-12)
    few = spread(loader(corpus), "actions", samples=3)
    assert (few.mean != spread(loader(corpus), "actions").mean).all()


def test_a_number_far_from_zero_that_never_varies_has_no_spread() -> None:
    rows = np.full((40, 2), 1000.3)
    rows[:, 1] += 0.01 * np.random.default_rng(0).normal(size=40)
    rows[3] = np.nan
    total = np.zeros((4, 2))
    for part in np.split(rows, 8):
        total = _joined(total, part)
    assert total[0].tolist() == [40, 40] and total[1].tolist() == [39, 39]
    np.testing.assert_allclose(total[2], np.nanmean(rows, 0), rtol=1e-12)
    deviation = np.sqrt(total[3] / total[1])
    assert deviation[0] < 1e-9 and deviation[1] == pytest.approx(np.nanstd(rows[:, 1]), rel=1e-6)


def test_sources_count_as_they_are_mixed(corpus: Path, scaled: Path) -> None:
    mixed = ({"shards": str(corpus), "weight": 3.0}, {"shards": str(scaled), "weight": 1.0})
    found, alone = spread(loader(mixed), "actions"), spread(loader(corpus), "actions")
    mean = 0.75 * alone.mean + 0.25 * (FACTOR * alone.mean + SHIFT)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-4)


def test_shards_without_actions_have_no_moments(corpus: Path, tmp_path: Path) -> None:
    shards = ShardSet.open(corpus)
    about: dict[str, Any] = {"fps": 10.0, "image_size": 32, "world": None, "action_size": 0, "seed": 0}
    with ShardWriter(tmp_path / "plain", **about, state_names=(), label_names=()) as writer:
        for sample in list(shards.samples)[:4]:
            video = ShardFiles(shards.store).read(sample)["mp4"]
            writer.write("train", sample.key, video, sample.frames, None, None, {})
    with pytest.raises(DataError, match="no actions in these shards"):
        spread(loader(tmp_path / "plain"), "actions")


def train(run: Path, shards: Path, predictor: dict[str, Any], steps: int = 25) -> LatentWorldModel:
    description = {
        "run": str(run),
        "data": {"shards": str(shards), "batch_size": 8, "clip_frames": 8},
        "encoder": {"kind": "conv", "width": 8, "channels": 8, "hidden": 32},
        "method": {"kind": "lewm", "directions": 16, "predictor": predictor},
        "trainer": {"steps": steps, "device": "cpu", "precision": "fp32", "monitor_every": 1000},
    }
    return pretrain(from_dict(description, PretrainConfig))


MARKOV = {"kind": "mlp", "hidden": 32, "normalize_actions": True}


def test_a_model_trained_on_actions_of_another_scale_plans_in_their_units(
    corpus: Path, scaled: Path, tmp_path: Path
) -> None:
    unit = train(tmp_path / "unit", corpus, MARKOV)
    train(tmp_path / "raw", scaled, MARKOV)
    raw = jepa.load(tmp_path / "raw")
    assert unit.dynamics is not None and raw.dynamics is not None
    z, goal = torch.randn(3, 1, 1, 8), torch.randn(3, 1, 8)
    actions = torch.rand(3, 20, 5, 4) * 2 - 1
    starts = [model.dynamics.initial_state(z, z.new_zeros(3, 0, 4)) for model in (unit, raw)]  # pyright: ignore[reportOptionalMemberAccess]
    one = rollout(unit.dynamics, starts[0], actions)
    other = rollout(raw.dynamics, starts[1], FACTOR * actions + SHIFT)
    torch.testing.assert_close(one, other, atol=5e-3, rtol=5e-3)
    planned = []
    for model, start, low, high, std in (
        (unit, starts[0], -1.0, 1.0, 0.7),
        (raw, starts[1], SHIFT - FACTOR, SHIFT + FACTOR, 0.7 * FACTOR),
    ):
        assert model.dynamics is not None
        planner = CEM(CEM.Config(samples=64, elites=8, iterations=6, std=std, min_std=std / 20))
        planner = planner.bounded(low, high)
        cost = goal_distance(model.dynamics, start, goal)
        planned.append(planner.plan(cost, torch.full((3, 5, 4), (low + high) / 2), torch.Generator().manual_seed(0)))
    torch.testing.assert_close(FACTOR * planned[0].actions + SHIFT, planned[1].actions, atol=5.0, rtol=0)
    torch.testing.assert_close(planned[0].cost, planned[1].cost, atol=1e-2, rtol=1e-2)
    assert planned[1].actions.abs().max() > 10, "in raw units"


def test_moments_lie_in_the_models_file_and_come_back(scaled: Path, tmp_path: Path) -> None:
    for kind in (MARKOV, {"kind": "gru", "normalize_actions": True}):
        run = tmp_path / str(kind["kind"])
        trained = train(run, scaled, kind, steps=1)
        rows, stored = everything(scaled, "actions.npy"), load_file(run / "model" / "model.safetensors")
        expected = torch.from_numpy(np.tile(rows.mean(0), 2)).float()  # a latent step has two frames
        torch.testing.assert_close(stored["dynamics.scale_actions.mean"], expected, atol=1e-3, rtol=1e-4)
        assert json.loads((run / "model" / "model.json").read_text())["dynamics"]["normalize_actions"] is True
        z, action = torch.randn(1, 1, 1, 8), torch.rand(1, 4) * 200 - 70
        steps = []
        for model in (trained, jepa.load(run)):
            assert model.dynamics is not None
            steps.append(model.dynamics.step(model.dynamics.initial_state(z, z.new_zeros(1, 0, 4)), action)[1].mean())
        assert torch.equal(*steps)


def test_a_model_that_standardizes_nothing_has_no_buffers_for_it(corpus: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", corpus, MARKOV | {"normalize_actions": False}, steps=1)
    names = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert not [name for name in names if "scale" in name]


@torch.no_grad()
def test_metas_file_holds_the_scales_in_its_embeddings(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = VideoViT(
        VideoViT.Config(patch=16, tubelet=2, width=24, depth=1, heads=2, positions="rotary_tiled"), 32, frames=4
    )
    sizes: dict[str, Any] = {"hidden": 24, "depth": 1, "heads": 2, "positions": "rotary_tiled"}
    ours = CausalPredictor(
        CausalPredictor.Config(
            state_size=7, **sizes, layer_norm_out=True, normalize_actions=True, normalize_states=True
        ),
        24,
        7,
        (2, 2),
    ).eval()
    assert isinstance(ours.scale_actions, Standardize) and isinstance(ours.scale_states, Standardize)
    ours.scale_actions.fit(NormalizationStats(torch.arange(7.0), torch.arange(1.0, 8.0)))
    ours.scale_states.fit(NormalizationStats(-torch.arange(7.0), torch.full((7,), 20.0)))
    torch.save(meta_ac.to_state(encoder, ours), tmp_path / "meta.pt")
    found = meta.load_state(str(tmp_path / "meta.pt"), "encoder")
    _, theirs = meta_ac.build(found, 32, 4, heads=2, predictor_heads=2)
    z, actions, states = torch.randn(2, 3, 4, 24), 9 * torch.randn(2, 3, 7), 40 * torch.randn(2, 3, 7)
    torch.testing.assert_close(theirs(z, actions, states), ours(z, actions, states), atol=1e-5, rtol=1e-5)
    told = CausalPredictor(CausalPredictor.Config(state_size=7, **sizes, next_state="predicted"), 24, 7, (2, 2))
    with pytest.raises(UserError, match="next_state: predicted"):
        meta_ac.to_state(encoder, told)


def test_inverse_dynamics_learn_standardized_actions(scaled: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", scaled, MARKOV, steps=10)
    with (tmp_path / "run" / "logs" / "metrics.csv").open() as file:
        names, values = file.readline().strip().split(","), file.readline().strip().split(",")
    loss = float(dict(zip(names, values, strict=True))["train/inverse_dynamics"])
    assert 0.1 < loss < 3, "of unit variance, and not of 10,000 times that"
