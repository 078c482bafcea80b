"""`make bench-gpu`, rehearsed on the CPU with tiny sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import gpu


@pytest.mark.slow
def test_everything_is_measured_and_written(tmp_path: Path) -> None:
    words = ["-m", "tests.bench.gpu", "--tiny", "--minutes", "30", "--out", str(tmp_path / "gpu.json")]
    unchecked = {"JEPA_CHECK_SHAPES": "0", "OMP_NUM_THREADS": "1"}  # as `make bench-gpu`; torch.compile fails on checks
    environment = os.environ | unchecked | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, *words], check=True, env=environment, timeout=600)
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["left_out"] == []
    rows = {row.pop("name"): row for row in record["rows"]}
    trained = [f"{recipe}, {mode}" for mode in gpu.MODES for recipe in gpu.RECIPES]
    assert list(rows) == ["matrix product", "loading", "planning, 1 at once", *trained]
    for name in trained:
        assert rows[name]["clips_per_second"] > 0 and rows[name]["gflop_per_clip"] > 0
    same = [rows[f"vjepa2_vitl, {mode}"]["gflop_per_clip"] for mode in gpu.MODES]
    assert len(set(same)) == 1  # what checkpointing computes again is not counted
    assert rows["loading"]["clips_per_second"] > 0 and rows["planning, 1 at once"]["plans_per_second"] > 0


def test_what_there_is_no_time_for_is_named(tmp_path: Path) -> None:
    gpu.main(["--tiny", "--minutes", "0", "--out", str(tmp_path / "gpu.json")])
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert len(record["rows"]) == 1 and len(record["left_out"]) == 2 + len(gpu.MODES) * len(gpu.RECIPES)


def test_without_a_gpu_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        gpu.main([])
