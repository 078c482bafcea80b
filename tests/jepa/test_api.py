"""What each verb does, called from Python; `import jepa` stays light."""

import subprocess
import sys
from pathlib import Path

import pytest

import jepa
from jepa.config import UserError
from jepa_probes.planning.config import PlanConfig

CONFIG = """
data: {shards: SHARDS, batch_size: 8, clip_frames: 10}
encoder: {kind: conv, width: 16, tubelet: 1, channels: 8}
method: {kind: lewm, predictor: {hidden: 16}}
trainer: {steps: 3, device: cpu}
"""
FEW = ("tasks=2", "steps=2", "gifs=0", "simulator_tasks=0", "inverse.updates=2", "horizon=2")


def test_a_model_is_trained_probed_and_planned_with(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, run = tmp_path / "c.yaml", tmp_path / "run"
    config.write_text(CONFIG.replace("SHARDS", str(corpus)))
    caplog.set_level("INFO", "jepa")
    model = jepa.pretrain(config, [f"run={run}", "trainer.steps=2"])
    assert model.spec == jepa.load(run).spec and any("step 2/2" in line for line in caplog.messages)
    scores = jepa.probe(run, None, ["supervised=false", "classifiers=[{kind: linear}]"]).scores
    assert {"pretrained", "random_init", "pixels"} <= set(scores["state_r2"])
    result = jepa.plan(str(run), None, FEW, out=tmp_path / "out")
    assert result.tasks == 2 and (tmp_path / "out" / "plan.json").is_file()
    with pytest.raises(UserError, match="overrides go with the path of a config"):
        jepa.plan(run, PlanConfig(), ["tasks=2"])


def test_parts_are_listed() -> None:
    assert {"lewm", "vjepa", "levjepa"} <= set(jepa.list_methods())
    assert {"conv", "video_vit", "frame"} <= set(jepa.list_encoders())
    assert {"tiny", "base"} <= set(jepa.list_encoder_sizes())
    assert {"tube", "causal"} <= set(jepa.list_masks())
    assert {"mlp", "gru"} <= set(jepa.list_predictors())
    assert {"cem", "gradient"} <= set(jepa.list_planners())
    assert {"linear", "attentive", "knn"} <= set(jepa.list_probes())
    assert {"two-rooms", "billiards-easy"} <= set(jepa.list_worlds())
    with pytest.raises(AttributeError, match="no attribute 'trainn'"):
        jepa.trainn  # noqa: B018


def test_importing_jepa_imports_no_torch() -> None:
    code = "import sys, jepa; assert 'pretrain' in jepa.__all__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
