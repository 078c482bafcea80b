"""`trainer.compile`: the same training with compiled transformer blocks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jepa.cli import main
from jepa.training.run_state.metrics_log import read_rows

CONFIG = """
run: {run}
data: {{shards: {corpus}, batch_size: 4, clip_frames: 4}}
encoder: {encoder}
method: {method}
trainer: {{steps: 3, device: cpu, precision: fp32, log_every: 1, compile: {compiled}}}
"""
VIT = "{kind: video_vit, patch: 8, width: 24, depth: 2, heads: 2}"
VJEPA = "{kind: vjepa, predictor: {width: 24, depth: 1, heads: 2}}"


@pytest.mark.slow
def test_losses_are_those_of_the_plain_run(corpus: Path, tmp_path: Path) -> None:
    losses = {}
    for compiled in (False, True):
        run = tmp_path / str(compiled)
        config = run.with_suffix(".yaml")
        config.write_text(CONFIG.format(run=run, corpus=corpus, encoder=VIT, method=VJEPA, compiled=compiled))
        environment = os.environ | {"JEPA_CHECK_SHAPES": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "jepa.cli", "pretrain", str(config)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        assert ended.returncode == 0 and "Warning" not in ended.stderr, ended.stderr[-2000:]
        losses[compiled] = [float(row["train/loss"]) for row in read_rows(run / "logs" / "metrics.csv")]
    assert len(losses[True]) == 3 and losses[True] == pytest.approx(losses[False], rel=1e-4)


def test_a_method_without_blocks_is_told_so(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    conv = "{kind: conv, width: 8, channels: 8, hidden: 16}"
    lewm = "{kind: lewm, directions: 16, predictor: {hidden: 16}}"
    config.write_text(CONFIG.format(run=tmp_path / "run", corpus=corpus, encoder=conv, method=lewm, compiled=True))
    with pytest.raises(SystemExit) as stopped:
        main(["pretrain", str(config)])
    assert stopped.value.code == 2 and "method lewm has no transformer blocks" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
