"""`jepa plan`: costs beside the goal, what is saved of a result, and mistakes that are told in one line."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jepa.cli import main
from jepa.config import load
from jepa.models.model import open_model, save
from jepa.predictors.mlp import MLPPredictor
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.write import ShardWriter
from jepa_probes.planning.config import PlanConfig
from tests.edited import write_edited

pytestmark = pytest.mark.usefixtures("one_thread")
Jepa = Callable[..., str]
TRAINING = """
run: {run}
data: {{shards: {data}, batch_size: 8, clip_frames: 6, cache_mib: 50}}
encoder: {encoder}
method: {{kind: lewm, directions: 16, predictor: {{hidden: 32}}}}
trainer: {{steps: 5, checkpoint_every: 10, device: cpu}}
"""
CONV = "{kind: conv, width: 8, channels: 8, hidden: 32}"
FEW = ["tasks=4", "steps=6", "gifs=0", "simulator_tasks=0", "inverse=null"]
SMALL = ["planner.samples=8", "planner.elites=2", "planner.iterations=1"]
BALL = "kind: keep_out, names: [puck.x, puck.y], clips: 10"


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def trained(folder: Path, encoder: str = CONV) -> Path:
    (folder / "train.yaml").write_text(TRAINING.format(run=folder / "run", data=folder / "data", encoder=encoder))
    assert not call("pretrain", folder / "train.yaml")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    record = ["data", "record", "billiards-easy", folder / "data", "--episodes", 16, "--frames", 18, "--image-size", 32]
    assert not call(*record)
    return trained(folder)


@pytest.fixture
def run_jepa(capsys: pytest.CaptureFixture[str]) -> Jepa:
    def command(*arguments: object, fails: bool = False) -> str:
        code = call(*arguments)
        told = capsys.readouterr()
        assert code == (2 if fails else 0), told.err
        if fails:
            assert told.err.startswith("error: ") and told.err.count("\n") == 1, told.err
        return told.err if fails else told.out

    return command


def planned(run: Path) -> dict:
    return json.loads((run / "plan.json").read_text())


def test_costs_are_saved_and_read_again_and_it_is_reported_how_well_states_are_read(run: Path, run_jepa: Jepa) -> None:
    image = run / "goal.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(image)
    costs = [
        "{kind: action_cost, weight: 0.5}",
        f"{{{BALL}, center: [0.5, 0.5], radius: 0.1}}",
        "{kind: state, names: [puck.vx], target: [0.0], clips: 10}",
        f"{{kind: image, file: {image}}}",
    ]
    told = run_jepa("plan", run, *FEW, *SMALL, f"costs=[{', '.join(costs)}]")
    first = planned(run)
    terms = first["settings"]["terms"]
    assert [term["kind"] for term in terms] == ["action_cost", "keep_out", "state", "image"]
    assert set(terms[1]["r2"]) == {"puck.x", "puck.y"} and all(x <= 1 for x in terms[1]["r2"].values())
    assert first["entered"]["tasks"] <= 4
    assert "keep_out: R² of puck.x" in told and "tasks that neither begin nor end there" in told
    run_jepa("plan", run, "--config", run / "plan.yaml")
    assert planned(run)["distances"] == first["distances"] and planned(run)["settings"]["terms"] == terms
    run_jepa("plan", run, *FEW, *SMALL)
    assert planned(run)["entered"] is None and planned(run)["distances"] != first["distances"]


def test_who_enters_a_forbidden_region_is_watched_in_the_world_itself(run: Path, run_jepa: Jepa) -> None:
    def entered(center: str, radius: float) -> dict:
        run_jepa("plan", run, *FEW, *SMALL, "tasks=12", f"costs=[{{{BALL}, center: {center}, radius: {radius}}}]")
        return planned(run)["entered"]

    assert entered("[0.5, 0.5]", 0.9) == {"share": None, "tasks": 0}  # the whole table: all begin there
    assert entered("[9.0, 9.0]", 0.5) == {"share": 0.0, "tasks": 12}
    small = entered("[0.5, 0.5]", 0.2)
    assert 0 < small["tasks"] < 12 and 0 <= small["share"] <= 1


def test_rules_of_the_tasks_are_judged_saved_and_known_to_a_cost_without_a_center(run: Path, run_jepa: Jepa) -> None:
    rules = ["keep_out_radius=0.1", "max_action_cost=0.5", "min_distance=0.35", "tasks=8", f"costs=[{{{BALL}}}]"]
    told = run_jepa("plan", run, *FEW, *SMALL, *rules)
    first = planned(run)
    assert first["protocol"]["keep_out_radius"] == 0.1 and first["protocol"]["max_action_cost"] == 0.5
    assert len(first["rules"]["solved"]) == 8 and first["success"] == np.mean(first["rules"]["solved"])
    assert first["success"] <= first["reached_at_end"] and first["entered"] is None
    assert "planning: ended at the goal" in told and "cost too much" in told
    run_jepa("plan", run, "--config", run / "plan.yaml")
    assert planned(run)["rules"] == first["rules"]
    run_jepa("plan", run, *FEW, *SMALL)
    assert planned(run)["rules"] is None


def test_with_a_high_price_of_effort_hardly_anything_is_done(run: Path, run_jepa: Jepa) -> None:
    more = ["planner.samples=32", "planner.elites=4", "steps=12", "costs=[{kind: action_cost, weight: 1000}]"]
    run_jepa("plan", run, *FEW, *more, "warm_start=none")
    lazy = planned(run)["distances"]
    run_jepa("plan", run, *FEW, *more[:3], "warm_start=none")
    assert planned(run)["distances"] != lazy


def test_a_result_tells_what_a_plan_took(run: Path, run_jepa: Jepa) -> None:
    told = run_jepa("plan", run, *FEW, "planner={kind: gradient, steps: 4, starts: 2}", "horizon=3", "replan_every=3")
    result = planned(run)
    assert result["model_calls_per_plan"] == 3 * (4 + 1) * 2 and result["differentiated_calls_per_plan"] == 3 * 4 * 2
    assert result["seconds_per_plan"] > 0 and result["seconds_per_plan_alone"] > 0
    assert result["seconds_per_plan"] * 4 * result["plans_per_task"] < result["seconds"]
    assert "30 imagined steps (24 followed back) a plan (" in told and "ms for one alone)" in told


def test_the_whole_protocol_is_in_the_result_and_in_its_config(run: Path, run_jepa: Jepa) -> None:
    run_jepa("plan", run, *FEW, *SMALL, "goal_offset=6", "min_distance=0.1", "seed=5", "horizon=4")
    protocol, written = planned(run)["protocol"], (run / "plan.yaml").read_text()
    expected = {"world": "billiards-easy", "world_version": 1, "tasks": 4, "steps": 6, "seed": 5, "goal_offset": 6}
    assert expected.items() <= protocol.items() and protocol["radius"] > 0 and protocol["goal_policy"] == "random"
    for name in (*expected, "radius", "min_distance", "goal_policy", "horizon"):
        assert f"\n{name}: " in f"\n{written}"
    assert planned(run)["settings"]["horizon"] == 4
    again = load(run / "plan.yaml", PlanConfig, [f"run={run}"])
    assert again.inverse is None, "what was left out stays left out"
    run_jepa("plan", run, "--config", run / "plan.yaml")
    assert load(run / "plan.yaml", PlanConfig, [f"run={run}"]) == again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["costs=[{kind: laziness}]"], "costs.0"),
        (["costs=[{kind: action_cost, weight: -1}]"], "costs.0"),
        (["costs=[{" + BALL + ", center: [0.5], radius: 0.1}]"], "a center with 2 number(s), one a name; found 1"),
        (["costs=[{" + BALL + ", center: [0.5, 0.5], radius: 0}]"], "radius"),
        (["costs=[{" + BALL + ", center: [0.5, 0.5]}]"], "a ball with a center needs a radius"),
        (["costs=[{" + BALL + "}]"], "costs.0: expected a center, as the tasks have no regions"),
        (
            ["costs=[{kind: keep_out, names: [puck.vx], clips: 10}]", "keep_out_radius=0.1", "min_distance=0.35"],
            "costs.0: the regions of the tasks are of puck.x, puck.y, found puck.vx",
        ),
        (["keep_out_radius=0.1", "min_distance=0.2"], "keep_out_radius is 0.1, so tasks must be at least 0.3 long"),
        (
            ["costs=[{kind: action_cost}, {kind: state, names: [puck.z], target: [0]}]"],
            "costs.1: no state 'puck.z' was recorded",
        ),
        (["costs=[{kind: state, names: [puck.x], target: [0, 1]}]"], "a target with 1 number(s), one a name; found 2"),
        (["costs=[{kind: image, file: NOWHERE}]"], "costs.0: NOWHERE: no image that can be read"),
        (["costs=[{kind: image, file: WIDE}]"], "expected a square image, as the model's, found 30 x 20"),
        (["horizon=0"], "horizon"),
        (["horizon=2", "replan_every=3"], "replan_every must be the horizon (2) at most, found 3"),
        (["horizon=2", "replan_every=1", "action_repeat=3"], "error: RUN: action_repeat must divide the actions of"),
        (["planner={kind: gradient, lr: 1e30}"], "planner.lr: expected a number less than or equal to 10000"),
        (["planner.cost_tolerance=-1"], "planner.cost_tolerance: expected a number greater than or equal to 0"),
        (["planner={kind: cem, samples: 8}"], "planner: elites must be samples (8) at most, found 10"),
        (["radius=.inf"], "radius: expected a finite number"),
        (["inverse.lr=1e30"], "inverse.lr: expected a number less than or equal to 1"),
        (["warm_start=controller"], "error: RUN: no controller here"),
        (["planner={kind: grasp}", "planner.cost_tolerance=soon"], "planner.cost_tolerance"),
        (["tasks=1"], "tasks"),
    ],
)
def test_a_mistake_is_reported_in_one_line(
    arguments: list[str], message: str, run: Path, tmp_path: Path, run_jepa: Jepa
) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "wide.png")
    named = [argument.replace("WIDE", str(tmp_path / "wide.png")) for argument in arguments]
    told = run_jepa("plan", run, *FEW, *named, fails=True)
    assert message.replace("RUN", str(run)) in told and told.count("\n") == 1


def test_what_cannot_be_decoded_is_reported_and_the_rest_is_drawn(tmp_path: Path, run_jepa: Jepa) -> None:
    """Images of 36 pixels are no multiple of the eight that a vector latent is unfolded to."""
    world = ["billiards-easy", tmp_path / "data", "--episodes", 10, "--frames", 14, "--image-size", 36]
    assert not call("data", "record", *world)
    run = trained(tmp_path, "{kind: frame, model: resnet10t, output: pooled}")
    told = run_jepa("plan", run, *FEW, *SMALL, "gifs=2")
    assert "nothing that is imagined can be shown: a pixel decoder needs 1 token" in told
    assert len(list((run / "figures").glob("plan_*.gif"))) == 2
    assert "nothing that is imagined can be shown" in run_jepa("report", run)
    assert (run / "figures" / "pca.gif").exists() and not (run / "figures" / "rollout.gif").exists()


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The run and its data, to be broken."""
    shutil.copytree(run.parent, tmp_path / "copy")
    folder = tmp_path / "copy" / "run"
    _, _, config = (folder / "config.yaml").read_text().partition("\n")  # without the checksum of its content
    (folder / "config.yaml").write_text(config.replace(str(run.parent / "data"), str(tmp_path / "copy" / "data")))
    return folder


def of_world(copy: Path, world: str) -> None:
    path = copy.parent / "data" / "manifest.json"
    write_edited(path, json.loads(path.read_text()) | {"world": world})


@pytest.mark.parametrize("verb", ["plan", "dream"])
def test_a_world_that_is_not_installed_is_reported_with_what_installs_it(
    copy: Path, verb: str, run_jepa: Jepa, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_world(copy, "push-t")
    monkeypatch.setitem(sys.modules, "pymunk", None)
    told = run_jepa(verb, copy, fails=True)
    assert "push-t needs the package pymunk" in told and "pip install 'openjepa[pusht]'" in told


@pytest.mark.parametrize("verb", ["plan", "dream"])
def test_a_world_that_does_not_exist_is_reported_with_the_nearest_name(copy: Path, verb: str, run_jepa: Jepa) -> None:
    of_world(copy, "two-room")
    assert "no world is named 'two-room' (did you mean 'two-rooms'?)" in run_jepa(verb, copy, fails=True)


def test_costs_that_are_not_finite_are_named_with_their_tasks(copy: Path, run_jepa: Jepa) -> None:
    model = open_model(copy)
    assert isinstance(model.world.dynamics, MLPPredictor)
    with torch.no_grad():
        model.world.dynamics.leave.bias[0] = 1e30  # finite, but its square is not
    save(model, copy / "model")
    told = run_jepa("plan", copy, *FEW, *SMALL, fails=True)
    assert "32 of 32 plans have a cost that is not finite, in episodes [0, 1, 2, 3]; has the model diverged?" in told
    assert not (copy / "plan.json").exists() or planned(copy)["protocol"]["tasks"] == 4  # of an earlier plan


@pytest.mark.parametrize("verb", ["plan", "dream"])
def test_a_model_whose_actions_are_not_the_worlds_is_reported(tmp_path: Path, verb: str, run_jepa: Jepa) -> None:
    rng = np.random.default_rng(0)
    about = {"world": "billiards-easy", "action_size": 3, "state_names": (), "label_names": (), "seed": 0}
    with ShardWriter(tmp_path / "data", fps=10, image_size=32, **about) as writer:
        for number in range(10):
            video = encode_mp4(rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), 10.0)
            split = "train" if number < 9 else "test"
            writer.write(split, f"clip-{number}", video, 8, rng.uniform(-1, 1, (7, 3)).astype(np.float32), None, {})
    told = run_jepa(verb, trained(tmp_path), fails=True)
    assert "the model's actions are 3 wide; billiards-easy takes 2 numbers 1 time(s)" in told
