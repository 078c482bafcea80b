"""The commands one after the other, each on what the one before wrote, as a person would type them."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import jepa
from jepa.agents import Policy
from jepa.cli import main
from jepa.config import UserError, load
from jepa.training.build_method import build_method
from jepa.training.config import PretrainConfig
from jepa_data.shards.encode import encode_mp4
from jepa_data.worlds import make_env

Jepa = Callable[..., str]

TRAINING = """
run: {run}
data: {{shards: {data}, batch_size: 8, clip_frames: 6}}
encoder: {{kind: conv, width: 8, channels: 8, hidden: 32}}
method: {{kind: lewm, directions: 16, predictor: {{hidden: 32}}}}
trainer: {{steps: 20, checkpoint_every: 10, device: cpu}}
"""
FAST = ["planner.samples=8", "planner.elites=2", "inverse.updates=20"]  # of `jepa plan`: a poor planner, and soon

CLASSIFIERS = "classifiers=[{kind: linear}, {kind: attentive, steps: 10}, {kind: knn}]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verbs")


@pytest.fixture
def run_jepa(capsys: pytest.CaptureFixture[str]) -> Jepa:
    def call(*arguments: object, fails: bool = False) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        assert ended.value.code == (2 if fails else 0), told.err
        return told.err if fails else told.out

    return call


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A run folder that every verb has worked on."""
    data, run, config = folder / "data", folder / "run", folder / "train.yaml"
    config.write_text(TRAINING.format(run=run, data=data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jepa_probes.reporting.run_decoder.STEPS", 5)  # of the decoder that `jepa plan` draws with
        for arguments in (
            ["data", "record", "billiards-easy", data, "--episodes", 24, "--frames", 24, "--image-size", 32],
            ["pretrain", config],
            ["probe", run, "clips_per_video=2", CLASSIFIERS],
            ["plan", run, "tasks=4", "steps=6", *FAST, "planner.iterations=1"],
            ["report", run, "--decoder-steps", 5],
        ):
            with pytest.raises(SystemExit) as ended:
                main([str(argument) for argument in arguments])
            assert ended.value.code == 0, arguments
    return run


def test_inspect_tells_what_the_shards_hold(run: Path, folder: Path, run_jepa: Jepa) -> None:
    told = run_jepa("data", "inspect", folder / "data")
    assert "20 samples" in told and "h264 20" in told and "bouncy" in told
    summary = json.loads(run_jepa("data", "inspect", folder / "data", "--json"))
    assert summary["splits"]["test"]["samples"] == 4 and summary["action_size"] == 2


def test_curves_are_drawn_of_runs(run: Path, folder: Path, run_jepa: Jepa) -> None:
    assert "both.png: run" in run_jepa("curves", run, "--out", folder / "images" / "both.png")
    assert (folder / "images" / "both.png").read_bytes().startswith(b"\x89PNG")
    told = run_jepa("curves", folder, fails=True)
    assert "no logs/metrics.csv here; give run folders" in told


def test_a_future_is_imagined_into_a_video(run: Path, folder: Path, run_jepa: Jepa) -> None:
    out = folder / "future.mp4"
    told = run_jepa("imagine", run, "--out", out, "--world", "billiards-easy", "--keys", "ddss")
    assert "latent error" in told and "frames a second" in told and str(out) in told
    assert out.is_file() and json.loads(out.with_suffix(".json").read_text())["actions"] == "keys ddss"
    told = run_jepa("imagine", run, "--samples", 3, fails=True)
    assert "predict a single future" in told and told.count("\n") == 1


def test_probe_scores_stand_beside_their_baselines(run: Path) -> None:
    result = json.loads((run / "probe.json").read_text())
    columns = {"pretrained", "random_init", "pixels", "pca_pixels", "supervised", "floor"}
    assert set(result["scores"]["state_r2"]) == columns
    assert set(result["scores"]["class.bodies.attentive.accuracy"]) == columns
    assert set(result["prediction"]) == {"1", "10"}


def test_features_are_computed_once(run: Path, run_jepa: Jepa) -> None:
    files = sorted((run / "features").glob("pretrained-*"))
    before = [file.stat().st_mtime_ns for file in files]
    first = json.loads((run / "probe.json").read_text())["scores"]
    run_jepa("probe", run, "clips_per_video=2", "supervised=false", CLASSIFIERS)
    assert files and [file.stat().st_mtime_ns for file in files] == before
    again = json.loads((run / "probe.json").read_text())["scores"]
    assert again["state_r2"]["pretrained"] == first["state_r2"]["pretrained"]


def test_a_plan_is_saved_with_its_protocol_floor_and_ceiling(run: Path) -> None:
    result = json.loads((run / "plan.json").read_text())
    assert 0 <= result["low"] <= result["success"] <= result["high"] <= 1
    assert {"random", "expert", "simulator"} <= set(result["baselines"])
    assert all(
        0 <= beside["low"] <= beside["success"] <= beside["high"] <= 1 for beside in result["baselines"].values()
    )
    assert result["seconds_per_plan"] > 0 and result["model_calls_per_plan"] == 48 and len(result["distances"]) == 4
    assert len(list((run / "figures").glob("plan_*.gif"))) == 4
    assert result["protocol"]["world"] == "billiards-easy" and result["protocol"]["tasks"] == 4


def test_the_same_plan_comes_out_twice(run: Path, run_jepa: Jepa) -> None:
    kept = []
    for _ in range(2):
        run_jepa("plan", run, "tasks=3", "steps=4", *FAST, "gifs=1")
        kept.append(json.loads((run / "plan.json").read_text()))
    assert kept[0]["distances"] == kept[1]["distances"] and kept[0]["baselines"] == kept[1]["baselines"]


def test_a_protocol_is_a_config_that_gives_another_run_the_same_tasks(
    run: Path, tmp_path: Path, run_jepa: Jepa
) -> None:
    few = [*FAST, "planner.iterations=1", "gifs=0", "simulator_tasks=0"]
    run_jepa("plan", run, "tasks=5", "steps=6", "goal_offset=6", "min_distance=0.1", "seed=3", *few)
    assert "policy: random" in (run / "plan.yaml").read_text()
    other = tmp_path / "other"
    shutil.copytree(run, other)
    run_jepa("plan", other, "--config", run / "plan.yaml")
    first, second = (json.loads((folder / "plan.json").read_text()) for folder in (run, other))
    assert first["protocol"] == second["protocol"] and first["distances"] == second["distances"]
    told = run_jepa("plan", "--compare", run, other)
    assert "of the same tasks" in told and "A - B: +0.000" in told and "p = 1" in told
    run_jepa("plan", other, "tasks=5", "steps=6", *few)
    assert "were not given the same tasks" in run_jepa("plan", "--compare", run, other, fails=True)
    (tmp_path / "tasks.yaml").write_text(
        f"run: {other}\ntasks: 2\nsteps: 2\nplanner: {{samples: 16}}\ngifs: 0\ninverse: null\n"
    )
    run_jepa("plan", tmp_path / "tasks.yaml")
    assert len(json.loads((other / "plan.json").read_text())["distances"]) == 2


@pytest.fixture
def read_only(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run as somebody sees it who may not write there. (Root may write anywhere, whatever its rights are.)"""
    allowed = tempfile.TemporaryFile

    def refuse(*, dir: Path) -> object:
        if dir.is_relative_to(run):
            raise PermissionError(13, "Permission denied", str(dir))
        return allowed(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    return run


SHARED = {
    "probe": (["clips_per_video=1", "supervised=false", CLASSIFIERS], {"probe.json", "features"}),
    "plan": (["tasks=2", "steps=2", *FAST], {"plan.json", "plan.yaml", "figures"}),
    "dream": (
        ["tasks=2", "steps=4", "clips=8", "controller={kind: evolution, generations: 1, population: 4, rollouts: 2}"],
        {"dream.json", "dream"},
    ),
    "decoder": (["steps=2", "clips=8", "test_clips=2"], {"decoder.json", "decoder.png"}),
    "report": (["--decoder-steps", 2], {"report.html", "results.json", "timings.json", "figures", "pixels"}),
}


@pytest.mark.slow
def test_a_shared_model_is_worked_with_from_a_folder_of_ones_own(
    read_only: Path, tmp_path: Path, run_jepa: Jepa
) -> None:
    def seen() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in sorted(read_only.rglob("*"))}

    before, out = seen(), tmp_path / "mine"
    for verb, (arguments, written) in SHARED.items():
        told = run_jepa(verb, read_only, *arguments, fails=True)
        assert told.startswith("error: ") and told.count("\n") == 1 and "Permission denied" in told
        assert "--out FOLDER" in told
        told = run_jepa(verb, read_only, *arguments, "--out", out)
        assert written <= {path.name for path in out.iterdir()} and str(out) in told
    assert seen() == before, "nothing was written beside the model"
    shown = json.loads((out / "results.json").read_text())
    assert shown["plan"]["tasks"] == 2 and shown["dream"]["tasks"] == 2 and shown["pretrain"]["steps"] == 20
    assert shown["probe"]["state_r2"].keys() == {"pretrained", "random_init", "pixels", "pca_pixels", "floor"}
    run_jepa("plan", read_only, *SHARED["plan"][0], "warm_start=controller", "gifs=0", "--out", out)


def test_a_folder_that_cannot_be_made_is_reported_before_anything_is_computed(
    run: Path, tmp_path: Path, run_jepa: Jepa
) -> None:
    (tmp_path / "file").write_text("in the way")
    for verb in SHARED:
        told = run_jepa(verb, run, "--out", tmp_path / "file" / "out", fails=True)
        assert told.count("\n") == 1 and "nothing can be written here (Not a directory)" in told and "--out" in told


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]


def test_the_report_is_one_file_and_the_results_hold_what_programs_look_for(run: Path) -> None:
    page = Tags()
    page.feed((run / "report.html").read_text())
    assert len(page.sources) >= 6
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    results = json.loads((run / "results.json").read_text())
    assert {"pretrained", "random_init", "pixels", "supervised"} <= set(results["probe"]["state_r2"])
    assert {"success", "low", "high", "baselines", "tasks"} <= set(results["plan"])
    assert {"method", "steps", "clips_per_second", "effective_rank"} <= set(results["pretrain"])
    assert results["seconds"]["total"] > 0 and "torch" in results["versions"] and "seeds" in results


def test_embed_writes_the_latents_of_a_folder_and_names_what_it_cannot_read(
    run: Path, tmp_path: Path, run_jepa: Jepa
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "features.npz"
    (videos / "inner").mkdir(parents=True)
    frames = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)
    (videos / "inner" / "a.mp4").write_bytes(encode_mp4(frames, 10.0))
    (videos / "broken.mp4").write_bytes(b"no video")
    told = run_jepa("embed", videos, "--model", run, "--out", out)
    assert "left out: broken.mp4" in told and "1 file(s), 1 left out" in told
    with np.load(out, allow_pickle=False) as features:
        assert features["inner/a.mp4"].shape == (5, 1, 8)
        np.testing.assert_allclose(features["inner/a.mp4.seconds"], [0.1, 0.3, 0.5, 0.7, 0.9], atol=1e-6)
        z = jepa.load(run).encode(videos / "inner" / "a.mp4")[0].numpy()
        np.testing.assert_allclose(features["inner/a.mp4"], z, atol=1e-5)


def test_embed_reads_shards(run: Path, folder: Path, tmp_path: Path, run_jepa: Jepa) -> None:
    run_jepa("embed", folder / "data", "--model", run, "--out", tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz", allow_pickle=False) as features:
        assert len(features.files) == 2 * 24 and features["episode-000000"].shape == (12, 1, 8)


def test_a_policy_steps_a_gymnasium_environment(run: Path) -> None:
    env = make_env("billiards-easy", image_size=32, max_steps=6)
    image, info = env.reset(seed=0)
    policy = Policy(jepa.load(run), info["goal_image"])
    done, steps = False, 0
    while not done:
        action = policy.act(image)
        assert env.action_space.contains(action)
        image, _, terminated, done, info = env.step(action)
        steps += 1
        assert not terminated
    assert steps == 6 and policy.plans == 2
    assert isinstance(env, gymnasium.Env)
    with pytest.raises(UserError, match="give both alike"):
        policy.act(np.zeros((48, 48, 3), dtype=np.uint8))


def test_plans_that_start_elsewhere_are_other_plans(run: Path, run_jepa: Jepa) -> None:
    few = ["tasks=4", "steps=4", *FAST, "gifs=0", "simulator_tasks=0"]
    found = {}
    for start in ("none", "inverse_dynamics"):
        run_jepa("plan", run, *few, f"warm_start={start}")
        found[start] = json.loads((run / "plan.json").read_text())
        assert f"warm_start: {start}" in (run / "plan.yaml").read_text()
    assert found["none"]["distances"] != found["inverse_dynamics"]["distances"]
    assert found["none"]["baselines"]["inverse_dynamics"] == found["inverse_dynamics"]["baselines"]["inverse_dynamics"]
    run_jepa("plan", run, *few, "inverse=null", "proposals.count=8", "proposals.clips=20", "know_budget=true")
    done = json.loads((run / "plan.json").read_text())
    assert done["distances"] != found["none"]["distances"] and done["settings"]["proposals"] == 8
    assert "inverse_dynamics" not in json.loads((run / "plan.json").read_text())["baselines"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "TRAIN", "optimizer.lrr=1"], "did you mean 'lr'"),
        (["pretrain", "TRAIN", "trainer.steps=many"], "trainer.steps"),
        (["pretrain", "TRAIN"], "already holds a run"),
        (["probe", "NOWHERE"], "NOWHERE"),
        (["plan", "RUN", "tasks=two"], "tasks"),
        (["plan", "RUN", "min_distance=0.01"], "begin solved"),
        (["plan", "RUN", "world=two-rooms"], "world is 'two-rooms' in the config, and 'billiards-easy' where"),
        (["plan", "RUN", "goal_offset=1", "min_distance=0.5", "tasks=2"], "or raise goal_offset (1)"),
        (["plan", "RUN", "goal_offset=5", "goal_policy=expert"], "goal_policy is 'expert'"),
        (["plan", "RUN", "horizon=0"], "horizon"),
        (["plan", "RUN", "warm_start=controller"], "run `jepa dream"),
        (
            ["plan", "RUN", "warm_start=inverse_dynamics", "inverse=null"],
            "warm_start: inverse_dynamics needs inverse dynamics",
        ),
        (["plan", "TASKS"], "names no run"),
        (["plan", "--compare", "RUN"], "takes two run folders"),
        (["plan", "--compare", "RUN", "NOWHERE"], "no such folder; give the one that `jepa plan` wrote plan.json to"),
        (["embed", "NOWHERE", "--model", "RUN"], "no such file"),
        (["embed", "TRAIN", "--model", "NOWHERE"], "no such folder"),
        (["data", "record", "billiard", "OUT"], "no world is named"),
        (["data", "inspect", "RUN"], "no shards here"),
        (["demo", "--seeds", "one"], "whole numbers"),
        (["demo", "--methods", "dino"], "no demo of method"),
        (["demo", "--methods", "lewm,dino"], "no demo of method 'dino'"),
    ],
)
def test_a_mistake_is_reported_in_one_line(
    arguments: list[str], message: str, run: Path, folder: Path, tmp_path: Path, run_jepa: Jepa
) -> None:
    (folder / "tasks.yaml").write_text("tasks: 2\n")
    names = {
        "TRAIN": folder / "train.yaml",
        "TASKS": folder / "tasks.yaml",
        "RUN": run,
        "OUT": tmp_path / "out",
        "NOWHERE": tmp_path / "NOWHERE",
    }
    told = run_jepa(*(names.get(argument, argument) for argument in arguments), fails=True)
    assert message in told
    assert told.startswith("error: ") and told.count("\n") == 1


RUN_EXPECTED = "expected the folder of a run (runs/demo) or of a model (with model.json)"


@pytest.mark.parametrize(
    "verb", ["probe", "plan", "dream", "diagnose", "report", "embed", "export", "compress", "decoder", "imagine"]
)
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("missing", f"no such folder; {RUN_EXPECTED}"),
        ("README.md", f"this is a file; {RUN_EXPECTED}"),
        ("empty", f"no model here; {RUN_EXPECTED}, which `jepa pretrain` or `jepa import` writes"),
        ("begun", "this run has no model yet; finish it with `jepa pretrain CONFIG --resume`"),
    ],
)
def test_what_is_no_run_is_refused_alike_by_every_verb(
    verb: str, place: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_jepa: Jepa
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("r/empty", "r/begun"):
        Path(folder).mkdir(parents=True)
    for file in ("r/README.md", "r/begun/config.yaml", "cat.png"):
        Path(file).touch()
    target = f"r/{place}"
    given = {"embed": ["cat.png", "--model", target], "export": [target, "--to", "openjepa"]}
    arguments = (given | {"compress": [target, "out", "--keep", "pca:4"]}).get(verb, [target])
    assert run_jepa(verb, *arguments, fails=True) == f"error: {target}: {message}\n"


@pytest.mark.parametrize("verb", ["plan", "dream", "diagnose", "report", "decoder", "imagine"])
def test_a_model_without_a_run_is_refused_alike(verb: str, run: Path, tmp_path: Path, run_jepa: Jepa) -> None:
    shutil.copytree(run / "model", tmp_path / "model")
    told = run_jepa(verb, tmp_path / "model", fails=True)
    message = "a model without a run (no config.yaml); give a folder that `jepa pretrain` wrote"
    assert told == f"error: {tmp_path / 'model'}: {message}\n"


def test_a_path_is_never_taken_for_a_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^r/model: no such folder; expected the folder of a run"):
        jepa.load(Path("r/model"))


ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_python_of_the_readme_runs(block: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block.replace("runs/demo", str(run)), "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_commands_of_the_readme_exist(run_jepa: Jepa) -> None:
    usage = README + (ROOT / "docs" / "usage.md").read_text()
    verbs = set(re.findall(r"(?:^|`|\$ )jepa (data \w+|\w+)", usage, re.MULTILINE))
    assert {"data record", "pretrain", "probe", "plan", "embed"} <= verbs
    for verb in verbs:
        assert run_jepa(*verb.split(), "--help")
    named = set(re.findall(r"configs/[\w/]+\.yaml", usage))
    assert named and all((ROOT / name).is_file() for name in named)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "pretrain").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_builds_its_method(path: Path) -> None:
    # A student needs the run of its teacher; here its own average will do.
    text = path.read_text()
    alone = ["method.teacher=ema", "method.teacher_from=null"] if "teacher_from" in text else []
    if "encoder_from" in text:
        alone += ["method.encoder_from=null"] + ["encoder={kind: conv}"] * ("\nencoder:" not in text)
    config = load(path, PretrainConfig, alone)
    with torch.device("meta"):
        method = build_method(config, config.data.image_size or 64, 2)
    assert method.evaluation_encoder() is not None
    assert "jepa " in path.read_text().splitlines()[0], "the header names the command"
