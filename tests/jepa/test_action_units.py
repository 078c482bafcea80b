"""Actions in pixels: trained on as well as in -1..1, and planned in pixels."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import jepa
from jepa.agents.config import InverseSettings
from jepa.agents.controller import ActionSpace, Linear, ObservationNormalizer
from jepa.agents.inverse import fit_inverse
from jepa.agents.policy import PlanSettings, Policy
from jepa.config import UserError, from_dict
from jepa.encoders.conv import ConvEncoder
from jepa.methods.base import ClipShape
from jepa.methods.lewm import LeWM
from jepa.normalize import NormalizationStats, Standardize
from jepa.planners.cem import CEM
from jepa.planners.cost import Imagined, action_cost
from jepa.planners.hybrid import Hybrid
from jepa.planners.mpc import ModelPredictiveControl
from jepa.planners.mppi import MPPI
from jepa.planners.random_shooting import RandomShooting
from jepa.predictors.mlp import MLPPredictor
from jepa.training.config import PretrainConfig
from jepa.training.module import Pretraining
from jepa.training.optim import Optimization
from jepa.training.pretrain import pretrain
from jepa.world_model import LatentWorldModel
from jepa_data.actions import ActionStats
from jepa_data.config import AugmentConfig
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import METADATA
from jepa_data.shards.read import ShardFiles, read_npy
from jepa_data.shards.write import ShardWriter
from jepa_data.types import ClipBatch
from tests.edited import write_edited

pytestmark = pytest.mark.usefixtures("one_thread")
PIXELS = 256.0  # 0..512: 256 + 256 a


@pytest.fixture(scope="module")
def runs(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same episodes in -1..1 and in pixels, as a LeRobot set has them (no world declares a range); both trained."""
    folder, runs = tmp_path_factory.mktemp("units"), {}
    for name, scale, shift in (("unit", 1.0, 0.0), ("pixels", PIXELS, PIXELS)):
        copied(corpus, folder / name, scale, shift)
        runs[name] = folder / f"run-{name}"
        train(runs[name], folder / name)
    return runs


def copied(corpus: Path, out: Path, scale: float, shift: float) -> None:
    shards = ShardSet.open(corpus)
    files, about = ShardFiles(shards.store), shards.manifest
    names: dict[str, Any] = {"state_names": (), "label_names": about.label_names, "world": None, "seed": 0}
    with ShardWriter(out, fps=about.fps, image_size=about.image_size, action_size=2, **names) as writer:
        for sample in shards.samples:
            members = files.read(sample)
            actions = scale * read_npy(members["actions.npy"], sample.frames - 1) + shift
            metadata = json.loads(members[METADATA])
            writer.write(sample.split, sample.key, members["mp4"], sample.frames, actions, None, metadata)


def train(run: Path, shards: Path, steps: int = 8, **predictor: Any) -> None:
    description = {
        "run": str(run),
        "data": {"shards": str(shards), "batch_size": 8, "clip_frames": 8},
        "encoder": {"kind": "conv", "width": 8, "channels": 8, "hidden": 32},
        "method": {"kind": "lewm", "directions": 16, "predictor": {"kind": "mlp", "hidden": 32} | predictor},
        "trainer": {"steps": steps, "device": "cpu", "precision": "fp32", "monitor_every": 1000, "log_every": 1},
    }
    pretrain(from_dict(description, PretrainConfig))


def losses(run: Path) -> np.ndarray:
    with (run / "logs/metrics.csv").open(newline="") as file:
        return np.array([float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]])


def test_actions_in_pixels_train_to_the_loss_of_the_same_actions_in_minus_one_to_one(runs: dict[str, Path]) -> None:
    assert len(losses(runs["pixels"])) == 8 and losses(runs["pixels"]).max() < 10
    np.testing.assert_allclose(losses(runs["pixels"]), losses(runs["unit"]), rtol=1e-3)


def test_raw_actions_in_pixels_are_refused_where_a_config_turns_standardizing_off(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"actions of the data reach 5.*: .*normalize_actions=true"):
        train(tmp_path / "run", runs["pixels"].parent / "pixels", normalize_actions=False)


def test_the_model_tells_the_range_of_its_actions(runs: dict[str, Path]) -> None:
    found = jepa.load(runs["pixels"]).spec.actions
    assert found is not None and found.origin == "data" and min(found.low) >= 0 and 1 < max(found.high) <= 512
    unit = jepa.load(runs["unit"]).spec.actions
    assert unit is not None
    np.testing.assert_allclose(found.high, PIXELS * np.array(unit.high) + PIXELS, rtol=1e-5)


def acted(model: LatentWorldModel, **settings: Any) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    # All samples are weighted: where a few elites are chosen, rounding would choose others.
    planner = MPPI(MPPI.Config(samples=32, elites=32, iterations=3))
    policy = Policy(model, images[::-1].copy(), PlanSettings(horizon=3, replan_every=1, planner=planner, **settings))
    return np.stack([policy.act(images) for _ in range(4)])


def test_a_policy_acts_in_pixels_as_the_same_model_does_in_minus_one_to_one(runs: dict[str, Path]) -> None:
    model, unit = jepa.load(runs["pixels"]), jepa.load(runs["unit"])
    done, spec = acted(model), model.spec.actions
    assert spec is not None
    assert (done >= np.float32(spec.low) - 1e-3).all() and (done <= np.float32(spec.high) + 1e-3).all()
    assert done.max() > 300 > 200 > done.min()
    np.testing.assert_allclose(done, PIXELS * acted(unit) + PIXELS, atol=PIXELS / 20)


@pytest.mark.parametrize("bounds", ["box", "ball"])
def test_data_of_minus_one_to_one_are_planned_exactly_as_without_a_range(bounds: Any) -> None:
    declared = ActionStats(low=(-1.0, -1.0), high=(1.0, 1.0), mean=(0.1, 0.0), std=(0.4, 0.6), origin="world")
    plans = []
    for actions in (None, declared):
        control = control_of(CEM(CEM.Config(samples=16, elites=4, iterations=3)), bounds=bounds, actions=actions)
        plans.append(control.plan(lambda a: (a - 0.7).square().mean((-2, -1)), 3).actions)
    assert torch.equal(*plans)


def control_of(planner: Any, **settings: Any) -> ModelPredictiveControl:
    return ModelPredictiveControl(planner, horizon=2, replan_every=1, action_size=2, **settings)


JOINTS = ActionStats(low=(2.0, -0.5), high=(4.0, 0.5), mean=(3.2, 0.0), std=(0.25, 0.1))


def test_without_bounds_a_planner_counts_deviations_of_the_data() -> None:
    tried: list[Tensor] = []

    def cost(actions: Tensor) -> Tensor:
        tried.append(actions)
        return (actions - torch.tensor([4.2, 0.55])).square().mean((-2, -1))

    planner = CEM(CEM.Config(samples=2000, elites=20, iterations=20, std=1.0))
    plan = control_of(planner, bounds="none", actions=JOINTS).plan(cost, 1)
    torch.testing.assert_close(tried[0].mean((0, 1, 2)), torch.tensor(JOINTS.mean), atol=0.02, rtol=0)
    torch.testing.assert_close(tried[0].std((0, 1, 2)), torch.tensor(JOINTS.std), atol=0.01, rtol=0)
    torch.testing.assert_close(plan.actions[0, 0], torch.tensor([4.2, 0.55]), atol=0.1, rtol=0)
    boxed = control_of(planner, actions=JOINTS).plan(cost, 1)
    torch.testing.assert_close(boxed.actions[0, 0], torch.tensor([4.0, 0.5]))


def test_every_planner_goes_without_bounds_but_the_one_that_draws_evenly_within_them() -> None:
    found = control_of(Hybrid(Hybrid.Config()), bounds="none").planner
    assert isinstance(found, Hybrid) and found.refine.high == found.sampler.high == torch.inf
    with pytest.raises(ValueError, match="random shooting draws evenly within bounds"):
        control_of(RandomShooting(RandomShooting.Config()), bounds="none")


def test_a_suggestion_comes_back_in_its_units_and_a_number_that_never_varies_stays() -> None:
    still = ActionStats(low=(0.0, 7.0), high=(512.0, 7.0), mean=(200.0, 7.0), std=(50.0, 0.0))
    control = control_of(CEM(CEM.Config(samples=4, elites=2, iterations=1, std=1e-6, min_std=1e-6)), actions=still)
    suggested = torch.tensor([[[100.0, 7.0], [500.0, 7.0]]])
    plan = control.plan(lambda a: a[..., 0].mean(-1) * 0, 1, suggested)
    torch.testing.assert_close(plan.actions, suggested, atol=0.1, rtol=0)


def test_a_controller_covers_the_range_of_the_data() -> None:
    space = ActionSpace(2, frames=2, actions=JOINTS)
    controller = Linear(ObservationNormalizer(1, 4), space)
    controller.set(20 * torch.randn(controller.parameter_count, generator=torch.Generator().manual_seed(0)))
    done = controller.act(torch.randn(50, 1, 4), torch.randn(50, 1, 4)).unflatten(-1, (2, 2))
    low, high = torch.tensor(JOINTS.low), torch.tensor(JOINTS.high)
    torch.testing.assert_close(done.amin((0, 1)), low, atol=0.05, rtol=0)
    torch.testing.assert_close(done.amax((0, 1)), high, atol=0.05, rtol=0)
    decided = torch.rand(5, 4) * 2 - 1
    torch.testing.assert_close(space.decisions(space.block(decided)), decided)


def test_inverse_dynamics_learn_pixels_as_they_learn_minus_one_to_one() -> None:
    torch.manual_seed(0)
    latents, actions = torch.randn(6, 4, 1, 3), torch.rand(6, 3, 2) * 2 - 1
    settings = InverseSettings(updates=30, batch=32, hidden=16)
    pixels = ActionStats(low=(0.0,) * 2, high=(512.0,) * 2, mean=(256.0,) * 2, std=(100.0,) * 2)
    unit = fit_inverse(latents, latents, actions, ActionSpace(2), settings)
    other = fit_inverse(latents, latents, PIXELS * actions + PIXELS, ActionSpace(2, actions=pixels), settings)
    z, goal = latents[:, 0], latents[:, 2]
    torch.testing.assert_close(other.act(z, goal), PIXELS * unit.act(z, goal) + PIXELS, atol=0.5, rtol=0)


def test_effort_is_the_same_in_any_unit() -> None:
    actions, latents = torch.rand(2, 5, 3, 4) * 2 - 1, torch.zeros(2, 5, 3, 1, 1)
    metres = ActionStats(low=(-0.05,) * 2, high=(0.05,) * 2, mean=(0.0,) * 2, std=(0.01,) * 2)
    found = action_cost(metres)(Imagined(latents, 0.05 * actions))
    torch.testing.assert_close(found, action_cost()(Imagined(latents, actions)))


def test_a_number_that_hardly_varies_beside_its_mean_is_not_blown_up() -> None:
    scale = Standardize(1)
    scale.fit(NormalizationStats(torch.tensor([512.3]), torch.tensor([1e-5])))  # what rounding leaves of a constant
    assert scale(torch.tensor([[512.3001]])).abs().item() < 1e-2


def test_a_model_of_an_earlier_version_keeps_raw_actions_and_minus_one_to_one(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    train(tmp_path / "run", runs["unit"].parent / "unit", steps=1, normalize_actions=False)
    path = tmp_path / "run/model/model.json"
    described = json.loads(path.read_text())
    del described["spec"]["actions"], described["dynamics"]["normalize_actions"]
    write_edited(path, described)
    spec = jepa.load(tmp_path / "run").spec
    assert spec.actions is not None and (spec.actions.low, spec.actions.origin) == ((-1.0, -1.0), "assumed")


def test_a_state_that_the_predictor_needs_and_a_sample_has_not_is_named_before_the_loss() -> None:
    states = torch.zeros(2, 4, 3)
    states[1, 2, 2] = torch.nan
    video = torch.zeros(2, 4, 3, 8, 8, dtype=torch.uint8)
    batch = ClipBatch(video, None, states, ("fine", "broken"), torch.zeros(2))

    def module(*columns: int) -> Pretraining:
        settings: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "augment": AugmentConfig()}
        settings |= {"seed": 0, "total_steps": 1}
        optimization = Optimization(torch.optim.SGD, lambda step: 1.0)
        encoder = ConvEncoder(ConvEncoder.Config(width=2, channels=8, hidden=8), 32, 4)
        method = LeWM(LeWM.Config(predictor=MLPPredictor.Config(hidden=4)), encoder, ClipShape(4, 1))
        return Pretraining(method, optimization, state_columns=columns, **settings)

    assert module(0, 1).on_before_batch_transfer(batch, 0) is batch
    with pytest.raises(UserError, match=r"sample 'broken': a state of method.states is missing \(NaN\)"):
        module(0, 2).on_before_batch_transfer(batch, 0)
