"""Two processes train one model: each with clips and masks of its own, both with the same weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jepa
from jepa.cli import main

SCRIPT = """
import hashlib, json, logging, sys
from pathlib import Path
from lightning.pytorch.callbacks import Callback
from jepa.config import load
from jepa.masks.tube import Tube
from jepa.training.pretrain import pretrain
from jepa.training.config import PretrainConfig

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)

class Recorder(Callback):
    def on_train_start(self, trainer, module):
        self.keys, self.masks = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        _, hidden = Tube(Tube.Config(ratio=0.5)).of(batch.video, (2, 4, 4), module.generator(batch_idx))
        self.keys.append(list(batch.keys))
        self.masks.append(hidden.tolist())

    def on_train_end(self, trainer, module):
        digest = hashlib.sha256(b"".join(x.detach().numpy().tobytes() for x in module.parameters()))
        record = {"keys": self.keys, "masks": self.masks, "weights": digest.hexdigest()}
        path = Path(sys.argv[1]).parent / f"{trainer.global_rank}.json"
        path.write_text(json.dumps(record))

if __name__ == "__main__":
    config = load(Path(sys.argv[1]), PretrainConfig, sys.argv[2:])
    pretrain(config, callbacks=(Recorder(),), resume="--resume" in sys.argv)
"""

CONFIG = """
run: {run}
data: {{shards: {data}, batch_size: 8, clip_frames: 4, image_size: 32}}
encoder: {encoder}
method: {method}
trainer: {{steps: 4, device: cpu, devices: 2, log_every: 1, monitor_every: 2}}
"""
VIT = "kind: video_vit, patch: 8, width: 24, depth: 2, heads: 2"
RUNS = {
    "vjepa 2.1": (
        f"{{{VIT}, images: true, levels: [0, 1], position_grid: 4}}",
        "{kind: vjepa, predictor: {width: 24, depth: 1, heads: 2}, dense: {weight: 0.5, start: 1, end: 3}}",
    ),
    "levjepa": (f"{{{VIT}, cls_token: true}}", "{kind: levjepa}"),
    "lewm": (
        "{kind: conv, width: 8, channels: 8, hidden: 32}",
        "{kind: lewm, directions: 16, predictor: {hidden: 32}}",
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "data"
    with pytest.raises(SystemExit):
        main(
            [
                "data",
                "record",
                "billiards-easy",
                str(folder),
                "--episodes",
                "24",
                "--frames",
                "16",
                "--image-size",
                "32",
            ]
        )
    return folder


@pytest.mark.parametrize(
    "name", ["vjepa 2.1", *(pytest.param(name, marks=pytest.mark.slow) for name in list(RUNS)[1:])]
)
def test_two_ranks_share_a_batch_draw_other_masks_and_keep_the_same_weights(name: str, data: Path, tmp_path: Path):
    encoder, method = RUNS[name]
    script, config = tmp_path / "train.py", tmp_path / "c.yaml"
    script.write_text(SCRIPT)
    config.write_text(CONFIG.format(run=tmp_path / "run", data=data, encoder=encoder, method=method))
    # One thread in both: the norm that gradients are clipped by is summed in an order that depends on their number.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, script, config], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["weights"] == second["weights"]
    seen = [key for keys in (*first["keys"][:2], *second["keys"][:2]) for key in keys]  # within the first epoch
    assert len(seen) == len(set(seen)) == 16
    masks = [json.dumps(mask) for mask in first["masks"] + second["masks"]]
    assert len(set(masks)) == len(masks) == 8, "every rank and every step has masks of its own"
    told = ended.stdout.splitlines()
    assert sum(line.startswith("step 4/4") for line in told) == 1 and f"{tmp_path / 'run/model'}: what" in told[-1]
    summary = json.loads((tmp_path / "run/pretrain.json").read_text())
    assert summary["steps"] == 4 and jepa.load(tmp_path / "run").spec.width in (8, 24)
