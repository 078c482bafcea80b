"""`jepa dream`: from a small run to a controller that plays, and what it tells."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import jepa
from jepa.agents.controller import Actor, Linear
from jepa.agents.imagination.policy import ImaginationPolicy
from jepa.cli import main
from jepa.config import UserError, load
from jepa_data.worlds import make_env
from jepa_probes.imagination.config import DreamConfig
from jepa_probes.imagination.dream import load_controller, table
from jepa_probes.imagination.evaluate import compare_returns
from jepa_probes.imagination.result import DreamResult

Jepa = Callable[..., str]
TRAINING = """
run: {run}
data: {{shards: {data}, batch_size: 8, clip_frames: 6}}
encoder: {encoder}
method: {method}
trainer: {{steps: 5, checkpoint_every: 10, device: cpu}}
"""
CONV = "{kind: conv, width: 8, channels: 8, hidden: 32}"
VIT = "{kind: video_vit, width: 24, depth: 1, heads: 2, patch: 16}"
LEWM, VJEPA = "{kind: lewm, directions: 16}", "{kind: vjepa, predictor: {width: 24, depth: 1, heads: 2}}"
SMALL = ["tasks=3", "steps=12", "clips=12"]
ACTOR = ["controller={kind: actor_critic, updates: 2, batch: 8, horizon: 3, hidden: 16}"]
EVOLUTION = ["controller={kind: evolution, generations: 2, population: 6, rollouts: 4, horizon: 3}"]


def called(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def run_jepa(capsys: pytest.CaptureFixture[str]) -> Jepa:
    def call(*arguments: object, fails: bool = False) -> str:
        code = called(*arguments)
        told = capsys.readouterr()
        assert code == (2 if fails else 0), told.err
        return told.err if fails else told.out

    return call


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dream") / "data"
    assert not called("data", "record", "billiards-easy", folder, "--episodes", 16, "--frames", 18, "--image-size", 32)
    return folder


def pretrained(data: Path, folder: Path, encoder: str, method: str) -> Path:
    config = folder / "train.yaml"
    config.write_text(TRAINING.format(run=folder / "run", data=data, encoder=encoder, method=method))
    assert not called("pretrain", config)
    return folder / "run"


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Billiards: a latent step is two frames, and goals are still images."""
    return pretrained(data, tmp_path_factory.mktemp("run"), CONV, LEWM)


@pytest.mark.parametrize(("controller", "kind"), [(ACTOR, Actor), (EVOLUTION, Linear)], ids=["actor", "evolution"])
def test_what_learned_in_dreams_is_scored_saved_and_acts(run: Path, controller, kind, run_jepa: Jepa) -> None:
    told = run_jepa("dream", run, *SMALL, *controller)
    result = json.loads((run / "dream.json").read_text())
    assert 0 <= result["low"] <= result["success"] + 1e-9 <= result["high"] + 1e-9 <= 1 + 1e-9
    assert {"random", "expert"} == set(result["baselines"]) and result["planner"] is None
    assert result["returns"]["horizon"]["steps"] == 3 and result["returns"]["task"]["steps"] == 5
    for found in result["returns"].values():
        assert found["gap"] == pytest.approx(found["dream"] - found["world"]) and abs(found["gap"]) <= found["apart"]
    assert all(line in told for line in table(DreamResult.read(run))) and "in the dream  in the world" in told
    assert len(result["history"]) >= 3 and len(result["distances"]) == 3

    learned = load_controller(run)
    assert type(learned) is kind
    env = make_env("billiards-easy", image_size=32, max_steps=6)
    image, info = env.reset(seed=0)
    policy = ImaginationPolicy(jepa.load(run), learned, info["goal_image"])
    done, first = False, None
    while not done:
        action = policy.act(image)
        first = action if first is None else first
        assert env.action_space.contains(action)
        image, _, _, done, _ = env.step(action)
    assert policy.decisions == 3
    policy.reset()
    np.testing.assert_array_equal(policy.act(env.reset(seed=0)[0]), first)
    with pytest.raises(UserError, match="give both alike"):
        policy.act(np.zeros((48, 48, 3), dtype=np.uint8))


def test_the_same_seed_gives_the_same_controller_and_score(run: Path, run_jepa: Jepa) -> None:
    kept = []
    for seed in (1, 1, 2):
        run_jepa("dream", run, *SMALL, *ACTOR, f"seed={seed}")
        result = json.loads((run / "dream.json").read_text())
        kept.append((result["distances"], result["history"], (run / "dream" / "model.safetensors").read_bytes()))
    assert kept[0] == kept[1] and kept[0][2] != kept[2][2]


def test_the_planner_stands_beside_where_it_had_the_same_tasks(run: Path, tmp_path: Path, run_jepa: Jepa) -> None:
    planned = tmp_path / "planned"
    shutil.copytree(run, planned)
    few = ["planner.samples=8", "planner.elites=2", "planner.iterations=1", "gifs=0", "simulator_tasks=0"]
    run_jepa("plan", planned, "tasks=3", "steps=12", "inverse.updates=2", *few)
    assert "planning in latents" in run_jepa("dream", planned, *SMALL, *ACTOR)
    assert json.loads((planned / "dream.json").read_text())["planner"]["tasks"] == 3
    assert "planning in latents" not in run_jepa("dream", planned, *SMALL, *ACTOR, "tasks=4")


def test_rewards_of_states_and_bonuses_and_gradients_through_the_model(run: Path, run_jepa: Jepa) -> None:
    through = [ACTOR[0].replace("updates", "gradient: dynamics, updates")]
    run_jepa(
        "dream",
        run,
        *SMALL,
        *through,
        "reward={kind: state, names: [puck.x, puck.y]}",
        "action_repeat=2",
        "bounds=ball",
    )
    assert json.loads((run / "dream" / "model.json").read_text())["action_repeat"] == 2
    run_jepa("dream", run, *SMALL, *ACTOR, "reward={kind: distance, measure: root, bonus: 1.0}", "sampled=true")


def test_a_controller_is_trained_at_each_temperature_and_one_is_kept(run: Path, run_jepa: Jepa) -> None:
    at = ["sampled=true", "temperature=0.5", "temperatures=[2.0, 0.5, 1.15]"]
    told = run_jepa("dream", run, *SMALL, *EVOLUTION, *at)
    result = json.loads((run / "dream.json").read_text())
    assert set(result["temperatures"]) == {"0.5", "2", "1.15"}
    assert result["temperatures"]["0.5"] == result["returns"]
    rows = [line.split() for line in told.splitlines() if "latent steps" in line]
    assert [row[3] for row in rows] == ["0.5", "0.5", "1.15", "1.15", "2", "2"]  # of the horizon, and of the task
    assert "this model predicts one outcome" in told  # and so the dreams are the same
    assert rows[0][4:] == rows[2][4:] == rows[4][4:]
    run_jepa("dream", run, *SMALL, *EVOLUTION)
    assert json.loads((run / "dream.json").read_text())["temperatures"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "temperature=2"], "set sampled: true"),
        (["RUN", "sampled=true", "temperature=0"], "temperature"),
        (["RUN", "temperatures=[1.0]"], "set sampled: true"),
        (["RUN", "controller={kind: evolution, mirrored: 0.7}"], "mirrored"),
        (["RUN", "reward={kind: world}"], "no rewards were recorded"),
        (["RUN", "world=two-rooms"], "world is 'two-rooms' in the config, and 'billiards-easy' where"),
        (["RUN", "controller.kind=dream"], "controller.kind"),
        (["RUN", "controller.generations=3"], "generations"),
        (["RUN", "action_repeat=3"], "action_repeat must divide the 2 action(s) of a latent step, found 3"),
        (["RUN", "reward={kind: state, names: [puck.z]}"], "no state 'puck.z' was recorded; there are: "),
        (["RUN", "min_distance=0.01"], "begin solved"),
        (["TASKS"], "names no run"),
        (["NOWHERE"], "NOWHERE"),
    ],
)
def test_a_mistake_is_reported_in_one_line(arguments, message, run: Path, tmp_path: Path, run_jepa: Jepa) -> None:
    (tmp_path / "tasks.yaml").write_text("tasks: 2\n")
    names = {"RUN": run, "TASKS": tmp_path / "tasks.yaml", "NOWHERE": tmp_path / "NOWHERE"}
    told = run_jepa("dream", *(names.get(argument, argument) for argument in arguments), *SMALL[2:], fails=True)
    assert message in told and told.startswith("error: ") and told.count("\n") == 1


def test_a_model_without_dynamics_has_no_dreams(data: Path, tmp_path: Path, run_jepa: Jepa) -> None:
    run = pretrained(data, tmp_path, VIT, VJEPA)
    assert "its method has no dynamics, so it cannot dream" in run_jepa("dream", run, fails=True)
    with pytest.raises(UserError, match="no controller here; run `jepa dream"):
        load_controller(run)


def test_returns_of_dreams_and_of_the_world_are_compared_by_task() -> None:
    world = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    found = compare_returns(world + 0.5, world)
    assert found.steps == 5 and found.correlation == pytest.approx(1.0)
    assert found.gap == pytest.approx(2.5, abs=1e-5) and found.apart == pytest.approx(2.5, abs=1e-5)
    assert compare_returns(-world, world).correlation == pytest.approx(-1.0)
    expected = np.corrcoef(world.sum(1), world[:, 0])[0, 1]
    assert compare_returns(world, torch.nn.functional.pad(world[:, :1], (0, 4))).correlation == pytest.approx(
        expected, abs=1e-5
    )
    assert compare_returns(torch.zeros(4, 2), world[:4, :2]).correlation is None


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "configs" / "dream").glob("*.yaml")), ids=str)
def test_every_config_is_read(path: Path) -> None:
    assert load(path, DreamConfig).run and "jepa dream" in path.read_text().splitlines()[0]
