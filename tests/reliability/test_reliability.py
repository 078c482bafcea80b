"""Each experiment, a few times; `make reliability` runs them as often as docs/runs/reliability.md says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reliability.experiments import EXPERIMENTS


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_run_cannot_be_lost(name: str, tmp_path: Path) -> None:
    """By the command, for its processes are forks: they may not begin in one that has threads already."""
    out = tmp_path / "counts.json"
    words = [name, "--count", str(EXPERIMENTS[name].short), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.reliability", *words],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.is_file(), ended.stderr[-2000:]
    row = json.loads(out.read_text())["experiments"][name]
    if row["skipped"]:
        pytest.skip(row["skipped"])
    assert ended.returncode == 0 and not row["failures"], row["failures"]
    assert sum(row["tries"].values()) > 0
