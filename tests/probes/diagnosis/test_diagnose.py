"""A diagnosis of agents of which it is known what is wrong with them, and of a run; and mistakes, told in one line."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import jepa
from jepa.cli import main
from jepa.config import UserError, from_dict
from jepa.encoders.conv import ConvEncoder
from jepa.planners.cem import CEM
from jepa.planners.gradient import Gradient
from jepa.predictors.base import LatentState
from jepa.world_model import Deterministic, LatentSpec, LatentWorldModel, Preprocessing, block_actions
from jepa_data.config import StreamConfig
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.write import ShardWriter
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.loader import make_loader
from jepa_probes.diagnosis.config import DiagnoseConfig, diagnose_config
from jepa_probes.diagnosis.diagnose import examine
from jepa_probes.diagnosis.recordings import Subject
from jepa_probes.diagnosis.result import Diagnosis
from jepa_probes.planning.config import PlanConfig
from jepa_probes.planning.resolve import fitted
from jepa_probes.probing.features import extract

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE, FRAMES = 32, 16
DISTRACTION = 3.0
PLAN = {"steps": 24, "horizon": 5, "replan_every": 1, "action_repeat": 2, "inverse": None, "radius": 0.17}
SMALL = {"tasks": 16, "clips": 100, "read_updates": 200, "state_updates": 500, "horizons": [1, 3], "hidden": 64}
SEARCH = {"samples": 48, "iterations": 3}
FEW = {"starts": 6, "candidates": 16, "more_search": 2}
TRAINING = """
run: {run}
data: {{shards: {data}, batch_size: 8, clip_frames: 6, cache_mib: 50}}
encoder: {{{encoder}}}
method: {{kind: {method}}}
trainer: {{steps: 3, checkpoint_every: 10, device: cpu}}
"""
TINY = ("tasks=3", "plan.steps=6", "plan.planner.samples=8", "plan.planner.elites=2", "plan.planner.iterations=1")
CONV = "kind: conv, width: 8, channels: 8, hidden: 32"
LEWM = "lewm, directions: 16, predictor: {hidden: 32}"
BRIEF = ("read_updates=5", "state_updates=5", "plan.inverse.updates=5", "starts=3", "candidates=4", "clips=20")


class Eyes(nn.Module):
    """An encoder that needs no training: where the puck is, in the last frame of a step, and how fast; it is yellow.

    `blind`: it does not look at y. `distracted`: it takes the other discs for a part of the puck.
    """

    tokens, width, tubelet, image_size = 1, 4, 2, SIZE

    def __init__(self, blind: bool = False, distracted: bool = False) -> None:
        super().__init__()
        self.blind = blind
        self.distracted = distracted
        self.unused = nn.Parameter(torch.zeros(1))  # a model is where its parameters are

    def forward(self, video: Tensor) -> Tensor:
        yellow = (video[:, :, :2].amin(2) - video[:, :, 2] - 0.1).clamp_min(0)  # [B, T, h, w]
        at = center(yellow)
        if self.blind:
            at[..., 1] = 0.5
        first, last = at[:, ::2], at[:, 1::2]
        speed = last - first
        if self.distracted:
            last = last + DISTRACTION * center(video[:, 1::2].amax(2) * (yellow[:, 1::2] == 0))
        return torch.cat([4 * (last - 0.5), 10 * speed], -1)[:, :, None]


def center(light: Tensor) -> Tensor:
    """Where it is on average [..., 2], in widths of the image."""
    place = (torch.arange(SIZE) + 0.5) / SIZE
    total = light.sum((-1, -2)).clamp_min(1e-3)
    return torch.stack([(light.sum(-2) * place).sum(-1) / total, (light.sum(-1) * place).sum(-1) / total], -1)


class Pushed(nn.Module):
    """Linear dynamics, by least squares. `scrambled`: its weights are shuffled."""

    context, state_size = 1, 0

    def __init__(self, z: Tensor, blocks: Tensor, scrambled: bool = False) -> None:
        super().__init__()
        rows = torch.cat([z[:, :-1, 0], blocks, torch.ones(*blocks.shape[:2], 1)], -1).flatten(0, 1)
        weight = torch.linalg.lstsq(rows, z[:, 1:, 0].flatten(0, 1), driver="gelsd").solution
        self.weight = nn.Parameter(weight.flip(0, 1) if scrambled else weight, requires_grad=False)

    def initial_state(self, z: Tensor, actions: Tensor, states: Tensor | None = None) -> LatentState:
        return LatentState(z[:, -1])

    def step(
        self, state: LatentState, action: Tensor, noise: Tensor | None = None
    ) -> tuple[LatentState, Deterministic]:
        row = torch.cat([state.z[:, 0], action, torch.ones(len(action), 1)], -1)
        z = (row @ self.weight)[:, None]
        return LatentState(z), Deterministic(z)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diagnose") / "data"
    record(Recording("billiards-easy", episodes=60, frames=FRAMES, image_size=SIZE), folder)
    return folder


def agent(data: Path, *, blind: bool = False, distracted: bool = False, scrambled: bool = False) -> Subject:
    """One that plans well, unless it is broken."""
    encoder = Eyes(blind, distracted)
    stream = from_dict({"shards": str(data), "batch_size": 16, "clip_frames": 10, "cache_mib": 50}, StreamConfig)
    seen = Preprocessing(SIZE, 10.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), clip_frames=10)
    actions = ShardSet.open(data).manifest.actions
    spec = LatentSpec(1, 4, 0.2, 2, 2, actions=actions)
    model = LatentWorldModel(encoder, None, spec, seen)
    loader = make_loader(stream, "train", seed=0, shuffle=False)
    features = extract(model.encode_clips, loader, 2, loader.shards.manifest.state_names)
    assert features.actions is not None
    dynamics = Pushed(features.latents, block_actions(features.actions, 2), scrambled)
    fresh = partial(ConvEncoder, ConvEncoder.Config(width=8, channels=8, hidden=32), SIZE, 10)
    config = from_dict(SMALL | FEW, DiagnoseConfig)
    return Subject(config, LatentWorldModel(encoder, dynamics, spec, seen), stream, fresh)


def diagnosed(subject: Subject, **planner: int) -> Diagnosis:
    config = subject.config
    plan = from_dict(PLAN | {"tasks": config.tasks, "min_distance": 0.35, "planner": SEARCH | planner}, PlanConfig)
    manifest = ShardSet.open(subject.data.folder).manifest
    plan = fitted(Path("run"), plan.model_copy(update={"seed": config.seed}), manifest, subject.model)
    return examine(replace(subject, config=config.model_copy(update={"plan": plan})))


def test_an_agent_with_nothing_wrong_is_reported_so(data: Path) -> None:
    found = diagnosed(agent(data))
    assert found.weakest == "none", found.verdict
    assert found.ladder["configured"].success >= 0.9
    assert found.goal_quantities == ("puck.position", "puck.velocity")
    row = found.readout["puck.position"]
    assert (row["pretrained"].mlp or 0) > 0.95 > (row["random_init"].mlp or 0)
    errors = [row for row in found.open_loop if row.quantity == "puck.position" and row.horizon == 3]
    assert (errors[0].read or 1) <= (errors[0].imagined or 0) < (errors[0].still or 0)
    assert (found.cost.correlation or 0) > 0.7 and (found.cost.recorded_rank or 0) < 0.2


@pytest.mark.slow
def test_a_planner_that_hardly_searches_is_the_link_that_binds(data: Path) -> None:
    found = diagnosed(agent(data), samples=2, elites=2, iterations=1)
    assert found.weakest == "refinement", found.verdict  # 20 steps along the gradient find what 2 samples do not
    assert "The search binds, not the model: plans refined by gradient solve" in found.verdict


def test_dynamics_with_shuffled_weights_are_the_link_that_binds(data: Path) -> None:
    found = diagnosed(agent(data, scrambled=True))
    assert found.weakest == "dynamics", found.verdict
    assert "The encoder holds the goal, and the dynamics lose it" in found.verdict


def test_an_encoder_that_drops_a_coordinate_is_the_link_that_binds(data: Path) -> None:
    found = diagnosed(agent(data, blind=True))
    assert found.weakest == "encoder", found.verdict
    assert "The encoder drops quantities that define the goal: puck.position (R²" in found.verdict


@pytest.mark.slow
def test_discs_that_nobody_controls_bind_where_their_places_in_the_goal_image_count(data: Path) -> None:
    found = diagnosed(agent(data, distracted=True))
    assert found.weakest == "goal", found.verdict
    assert "raise method.inverse_weight" in found.verdict
    assert found.ladder["goal_now"].success > found.ladder["configured"].success + 0.2


def trained(folder: Path, data: Path, method: str = LEWM, encoder: str = CONV) -> Path:
    (folder / "train.yaml").write_text(TRAINING.format(run=folder / "run", data=data, method=method, encoder=encoder))
    jepa.pretrain(folder / "train.yaml")
    return folder / "run"


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("run"), data)


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_command_prints_tables_and_writes_what_python_reads(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "plan.yaml").write_text("tasks: 200\nsteps: 9\nradius: 0.2\nmin_distance: 0.2\n")
    assert not call("diagnose", run, "--out", tmp_path, *TINY, *BRIEF, "supervised=true")
    told = capsys.readouterr().out
    for part in ("as configured", "inverse dynamics", "expert", "supervised", "nothing moves", "rank correlation"):
        assert part in told
    found = Diagnosis.read(tmp_path)
    assert told.split("\n")[-4].split()[-1] in found.verdict and not (run / "diagnosis.json").exists()
    assert found.protocol.tasks == 3 and found.protocol.seed == 1000 and found.protocol.radius == 0.2
    again = jepa.diagnose(run, None, (*TINY, *BRIEF, "supervised=true"), out=tmp_path / "again")
    same = {"ladder", "readout", "open_loop", "cost", "exploitation", "verdict"}
    drop = {"ladder": {name: {"cpu_seconds_per_plan"} for name in found.ladder}}
    first, second = (x.model_dump(include=same, exclude=drop) for x in (found, again))
    assert first == second


def test_the_planner_that_is_diagnosed_is_that_of_the_config(run: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("horizon: 3\ntasks: 9\nplanner: {kind: cem, samples: 17}\n")
    config = diagnose_config(run, plan, ["plan.horizon=2", "tasks=5"])
    assert (config.plan.horizon, config.tasks) == (2, 5)
    assert config.plan.planner == CEM.Config(samples=17)
    other = diagnose_config(run.parent, None, ["plan.planner.kind=gradient", "plan.planner.steps=3"])
    assert other.plan.planner == Gradient.Config(steps=3)
    with pytest.raises(UserError, match=r"plan\.horizont"):
        diagnose_config(run, plan, ["plan.horizont=2"])
    with pytest.raises(UserError, match=r"plan\.kind: unknown key; valid here: .*planner"):
        diagnose_config(run, plan, ["plan={kind: 3}"])


@pytest.mark.parametrize("key", ["tasks", "seed"])
def test_what_a_diagnosis_has_of_its_own_is_not_set_by_the_plan(run: Path, key: str) -> None:
    for override in (f"plan.{key}=3", f"plan={{{key}: 3}}"):
        with pytest.raises(UserError, match=rf"command line: plan\.{key}: has no effect on a diagnosis; .*give {key}="):
            diagnose_config(run, None, [override])
    with pytest.raises(UserError, match=r"plan\.run: has no effect on a diagnosis"):
        diagnose_config(run, None, ["plan.run=elsewhere"])


def test_a_run_without_dynamics_is_reported(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vit = "kind: video_vit, patch: 8, width: 24, depth: 1, heads: 2, size: null"
    assert call("diagnose", trained(tmp_path, data, "vjepa", vit)) == 2
    assert "its method has no dynamics, so there is no planning to diagnose" in capsys.readouterr().err


def test_a_run_on_recorded_videos_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    about = {"world": None, "action_size": 2, "state_names": (), "label_names": (), "seed": 0}
    with ShardWriter(tmp_path / "data", fps=10, image_size=SIZE, **about) as writer:
        for number in range(10):
            video = encode_mp4(rng.integers(0, 256, (8, SIZE, SIZE, 3), dtype=np.uint8), 10.0)
            split = "train" if number < 9 else "test"
            writer.write(split, f"clip-{number}", video, 8, rng.uniform(-1, 1, (7, 2)).astype(np.float32), None, {})
    folder = trained(tmp_path, tmp_path / "data")
    capsys.readouterr()
    assert call("diagnose", folder) == 2
    told = capsys.readouterr().err
    assert "trained on video that was not recorded in one of" in told and told.count("\n") == 1


def test_a_folder_that_is_no_run_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("diagnose", tmp_path / "nowhere") == 2
    assert "no such folder" in capsys.readouterr().err
    with pytest.raises(UserError, match="run `jepa diagnose "):
        Diagnosis.read(tmp_path)


def test_a_setting_that_does_not_fit_is_reported_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "figures", ignore_errors=True)
    assert call("diagnose", run, *TINY, *BRIEF, "plan.horizon=1", "plan.replan_every=2") == 2
    told = capsys.readouterr().err
    assert "plan: replan_every must be the horizon (1) at most, found 2" in told and told.count("\n") == 1
