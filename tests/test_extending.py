"""docs/extend.md as it is written: a package of other people's parts, one of each kind, from recording to a plan."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extend.md").read_text()
KINDS = ("worlds", "encoders", "predictors", "methods", "masks", "schedules", "planners", "costs", "probes")
SHORT = {
    "pretrain": ["trainer.steps=20"],
    "plan": ["tasks=2", "steps=4", "gifs=0", "simulator_tasks=0", "inverse.updates=2"],
}


def files() -> dict[str, str]:
    """The listings of the page by the name in their first line."""
    return dict(re.findall(r"```(?:python|toml|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip would install it: its modules, and a folder that names its entry points."""
    folder = tmp_path_factory.mktemp("outside")
    for name, text in files().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "my_parts" / "__init__.py").touch()
    project = tomllib.loads(files()["pyproject.toml"])["project"]
    about = folder / f"my_parts-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in points.items()) for group, points in groups
    ]
    (about / "entry_points.txt").write_text("\n".join(lines))
    return folder


# Runs commands and programs of argv[1] one after the other, and writes what each of them prints to argv[2].
IN_ONE_PROCESS = """
import contextlib, io, json, runpy, sys
from jepa.cli import main
printed = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if words[0] == "jepa":
            try:
                main(words[1:])
            except SystemExit as ended:
                assert not ended.code, words
        else:
            runpy.run_path(words[0], run_name="__main__")
    printed.append(out.getvalue())
open(sys.argv[2], "w").write(json.dumps(printed))
"""


def run(folder: Path, *commands: list[str]) -> list[str]:
    """What each of them prints, in a process that finds the package; they share it, because torch starts slowly."""
    places = [folder, ROOT, ROOT / "data", ROOT / "probes"]
    environment = os.environ | {"PYTHONPATH": ":".join(str(place) for place in places)}
    line = [sys.executable, "-c", IN_ONE_PROCESS, json.dumps(commands), str(folder / "printed.json")]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-3000:]}"
    return json.loads((folder / "printed.json").read_text())


def test_the_page_has_a_part_of_each_kind_in_one_file_and_one_line_each() -> None:
    groups = tomllib.loads(files()["pyproject.toml"])["project"]["entry-points"]
    assert set(groups) == {f"openjepa.{kind}" for kind in KINDS}
    assert all(len(points) == 1 for points in groups.values())
    for points in groups.values():
        (place,) = points.values()
        module, _, name = place.partition(":")
        assert f"class {name}(" in files()[module.replace(".", "/") + ".py"]


def test_the_commands_know_the_parts_of_an_installed_package(package: Path) -> None:
    commands = [shlex.split(line) for line in re.findall(r"^\$ jepa (.*)$", PAGE, re.MULTILINE)]
    assert [words[0] for words in commands] == ["data", "pretrain", "probe", "plan"]
    (package / "known.py").write_text(
        "from jepa_probes.probing import PROBES\nprint(PROBES['nearest_mean'].Config())\n"
    )
    (package / "masked.py").write_text(
        "import torch\nfrom jepa.masks import MASKS\nmask = MASKS['band'](MASKS.config('band')(columns=3))\n"
        "parts = mask((2, 4, 8), 5, torch.Generator().manual_seed(0))\n"
        "print([list(part.shape) for part in parts], torch.cat(parts, 1).sort(1).values.eq(torch.arange(64)).all())\n"
    )
    programs = ["in_a_program.py", "check_predictor.py", "known.py", "smooth.py", "masked.py", "windy.py"]
    printed = run(
        package, *(["jepa", *words, *SHORT.get(words[0], [])] for words in commands), *([name] for name in programs)
    )
    assert "pretrained" in printed[2]
    described = (package / "runs" / "drift" / "model" / "model.json").read_text()
    assert '"coarse"' in described and '"linear"' in described and '"next_step"' in described
    assert "inverse_root" in (package / "runs" / "drift" / "config.yaml").read_text()
    planned = json.loads((package / "runs" / "drift" / "plan.json").read_text())["settings"]
    assert "HillClimbing" in planned["planner"] and planned["terms"] == [{"kind": "smoothness", "weight": 0.05}]
    tanh, check, known, smooth, masked, windy = printed[len(commands) :]
    assert windy.strip() == "[ 0.   -0.09  0.09]"
    assert masked.strip() == "[[5, 40], [5, 24]] tensor(True)"
    assert "kind='tanh'" in tanh and check == "" and "nearest_mean" in known and smooth.strip() in ("True", "False")
