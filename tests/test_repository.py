"""The files around the code agree with it: workflow, citation, templates, type markers."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import jepa

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
YAML_FILES = sorted(
    [*(ROOT / ".github").rglob("*.yml"), *ROOT.glob("*.cff"), ROOT / ".pre-commit-config.yaml"],
)


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_files_of_the_repository_are_mappings(path: Path) -> None:
    assert isinstance(read_yaml(path), dict)


def test_the_citation_names_this_version_and_license() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["version"] == jepa.__version__
    assert citation["license"] == project()["project"]["license"]


def test_every_package_in_the_wheel_is_marked_as_typed() -> None:
    packages = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert len(packages) == 3
    for package in packages:
        assert (ROOT / package / "py.typed").is_file(), package


def test_the_workflow_runs_every_python_that_is_promised() -> None:
    classifiers = project()["project"]["classifiers"]
    promised = [name.rpartition(" :: ")[2] for name in classifiers if re.search(r":: 3\.\d+$", name)]
    assert read_yaml(WORKFLOW)["jobs"]["check"]["strategy"]["matrix"]["python"] == promised


def test_the_workflow_lints_and_tests_by_targets_that_exist() -> None:
    used = re.findall(r"make ([a-z-]+)", WORKFLOW.read_text())
    assert {"lint", "test"} <= set(used) <= make_targets()


def test_the_contributing_guide_names_targets_and_files_that_exist() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"`make ([a-z-]+)`", guide)) <= make_targets()
    named = re.findall(r"`((?:jepa|data|tests|probes|configs)/[\w/.]+)`", guide)
    missing = [path for path in named if not path.endswith("mine.py") and not (ROOT / path).exists()]
    assert named and not missing


def test_the_workflow_installs_the_system_packages_of_the_local_check() -> None:
    named = re.search(r'^needs="(.*)"', (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert named is not None
    for path in (WORKFLOW, ROOT / "CONTRIBUTING.md"):
        assert named[1] in path.read_text(), path.name


def test_the_workflow_can_only_read_the_repository() -> None:
    workflow = read_yaml(WORKFLOW)
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_pre_commit_uses_the_tested_ruff() -> None:
    pinned = re.search(r"^ruff==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    hooks = {repo["repo"]: repo.get("rev") for repo in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]}
    assert hooks["https://github.com/astral-sh/ruff-pre-commit"] == f"v{pinned[1]}"
