"""The commands of the guides run, one after the other, on a few small videos."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import jepa
from jepa.masks import MASKS
from jepa_data.worlds import world_names
from jepa_probes.imagination.result import DreamResult
from jepa_probes.planning.result import PlanResult

ROOT = Path(__file__).parents[1]
SCENES = {
    "fractal": "mandelbrot=size=96x64",
    "gradient": "gradients=size=96x64:seed=1",
    "life": "life=size=96x64:seed=1",
}


def commands(guide: Path) -> list[list[str]]:
    """Lines that begin with `$ ` in blocks marked as console, with those that continue them."""
    blocks = re.findall(r"```console\n(.*?)```", guide.read_text().replace("\\\n", " "), re.DOTALL)
    return [shlex.split(line[2:]) for block in blocks for line in block.splitlines() if line.startswith("$ ")]


SHORTER = {  # what is added to a command, so that it takes seconds
    "pretrain": ["trainer.steps=3", "data.batch_size=4", "trainer.log_every=1"],
    "record": ["--episodes", "24"],
    "plan": ["tasks=3", "steps=8", "simulator_tasks=1", "gifs=1", "inverse.updates=5"],
    "diagnose": [
        *("tasks=3", "plan.steps=8", "plan.planner={kind: cem, samples: 8, elites: 2}", "plan.inverse.updates=5"),
        *("read_updates=5", "state_updates=5", "starts=3", "candidates=4", "clips=20"),
    ],
    "decoder": ["steps=3", "clips=8", "test_clips=4"],
    "imagine": ["horizon=3"],
    "dream": ["tasks=3", "steps=8", "controller.updates=2"],
    "online": ["steps=450", "random_steps=200", "train_ratio=8", "evaluation_episodes=2"],
}


def run_python(blocks: list[str], folder: Path) -> str:
    """Run listings one after the other, as one program, and return what it prints."""
    env = os.environ | {"PYTHONPATH": ":".join(str(ROOT / part) for part in ("", "data", "probes"))}
    run = [sys.executable, "-c", "\n".join(blocks)]
    done = subprocess.run(run, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listings(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def run_guide(name: str, folder: Path, *, at_least: int, **changed: list[str]) -> None:
    """Run its commands in `folder`, with few steps, and its Python; `changed`: what is added to a command instead."""
    (folder / "configs").symlink_to(ROOT / "configs")
    env = os.environ | {"PYTHONPATH": ":".join(str(ROOT / part) for part in ("", "data", "probes"))}
    listed = commands(ROOT / "docs" / name)
    assert len(listed) >= at_least and all(command[0] == "jepa" for command in listed)
    for command in listed:
        verb = command[2] if command[1] == "data" else command[1]
        shorter = [] if "--compare" in command else (SHORTER | changed).get(verb, [])
        run = [sys.executable, "-m", "jepa.cli", *command[1:], *shorter]
        done = subprocess.run(run, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    run_python(listings(ROOT / "docs" / name), folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md"])
def test_the_python_of_the_page_runs(page: str, corpus: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"run: {tmp_path / 'runs/demo'}\ndata: {{shards: {corpus}, batch_size: 8, clip_frames: 10}}\n"
        "encoder: {kind: conv, width: 16, tubelet: 2, channels: 8}\nmethod: {kind: lewm, predictor: {hidden: 16}}\n"
        "trainer: {steps: 2, device: cpu}\n"
    )
    jepa.pretrain(config)
    assert re.search(r"^(True|False)\b", run_python(listings(ROOT / page), tmp_path), re.MULTILINE)  # info["success"]


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_configuration_reference_has_a_section_for_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "hooks")
    tables = importlib.import_module("configuration").tables()
    for kind in (*jepa.list_methods(), *jepa.list_encoders(), *MASKS):
        assert re.search(rf"^### \w+ \(`kind: {kind}`\)", tables, re.MULTILINE), kind
    targets = set(re.findall(r"\{#(.*?)\}", tables))
    assert set(re.findall(r"\]\(#(.*?)\)", tables)) <= targets


@pytest.mark.slow
def test_the_guide_to_your_own_videos_runs(tmp_path: Path) -> None:
    for name, scene in SCENES.items():
        (tmp_path / "my_videos" / name).mkdir(parents=True)
        for number in range(4):
            out = tmp_path / "my_videos" / name / f"{number}.mp4"
            line = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", scene, "-ss", str(number), "-t", "3.5"]
            subprocess.run([*line, "-pix_fmt", "yuv420p", str(out)], check=True)
    (tmp_path / "my_videos" / "life" / "99.mp4").write_text("no video")
    run_guide("your_own_videos.md", tmp_path, at_least=9)
    assert (tmp_path / "runs" / "my-videos" / "report.html").is_file() and (tmp_path / "features.npz").is_file()


@pytest.mark.slow
def test_the_page_about_collapse_runs(tmp_path: Path) -> None:
    run_guide("collapse.md", tmp_path, at_least=4)
    assert (tmp_path / "runs" / "collapse" / "curves.png").is_file()


@pytest.mark.slow
def test_the_page_about_planning_runs(tmp_path: Path) -> None:
    run_guide("planning.md", tmp_path, at_least=8)
    result = PlanResult.read(tmp_path / "runs" / "demo" / "careful")
    assert 0 <= result.success <= 1


@pytest.mark.slow
def test_world_models_runs_as_the_page_about_papers_says(tmp_path: Path) -> None:
    few = ["controller.generations=1", "controller.horizon=4", "controller.population=4", "reward.heads.updates=2"]
    run_guide("reproduce.md", tmp_path, at_least=4, dream=["tasks=2", "steps=4", *few])
    assert DreamResult.read(tmp_path / "runs" / "take-cover").baselines["random"].mean_return


@pytest.mark.slow
def test_the_page_about_usage_runs(tmp_path: Path) -> None:
    run_guide("usage.md", tmp_path, at_least=6)
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()


@pytest.mark.slow
def test_the_guide_to_worlds_runs(tmp_path: Path) -> None:
    run_guide("worlds.md", tmp_path, at_least=6)
    assert (tmp_path / "worlds.png").stat().st_size < 300 * 2**10 and (
        tmp_path / "runs" / "maze" / "plan.json"
    ).is_file()


def test_the_guide_to_worlds_knows_every_world() -> None:
    guide = (ROOT / "docs" / "worlds.md").read_text()
    table = guide[guide.index("| world |") : guide.index("Each world is a file")]
    for name in world_names():
        family, _, variant = name.rpartition("-")
        assert f"`{name}`" in table or (f"`{family}-" in table and f"`-{variant}`" in table), name
