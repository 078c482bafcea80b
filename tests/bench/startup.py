"""How long a command takes to begin: `jepa --help`, the first steps of a training, and the first after a resume.

    python -m tests.bench.startup

The late checkpoint is that of batch 10 whose counters were set to 100,000: nobody waits for so many steps. Lines of
progress come after each tenth of a run, so two or ten steps are waited for. All in seconds from the start of the
process, medians of a few starts, in turns.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from jepa.training.run_state.checkpoint_file import read_checkpoint, write_checkpoint
from jepa_data.sources.rollouts import Recording, record

EARLY, LATE = 10, 100_000
STARTS = 5
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}


def jepa(*words: object) -> list[str]:
    return [sys.executable, "-m", "jepa.cli", *map(str, words)]


def seconds_to(step: int, command: list[str]) -> float:
    """Until this step, or one after it, is told; the process is killed then."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if (told := re.match(r"step (\d+)/", line)) and int(told[1]) >= step:
                found = time.perf_counter() - began
                process.kill()
                return found
    raise RuntimeError("".join(said[-5:]))


def help_seconds() -> float:
    began = time.perf_counter()
    subprocess.run(jepa("--help"), env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def moved(counts: Any, to: int) -> Any:
    """The counters of the checkpoint, as of another step."""
    if isinstance(counts, dict):
        return {key: moved(value, to) for key, value in counts.items()}
    if isinstance(counts, list):
        return [moved(value, to) for value in counts]
    if isinstance(counts, int) and not isinstance(counts, bool) and EARLY - 1 <= counts <= EARLY + 1:
        return counts - EARLY + to
    return counts


def copy_at(run: Path, copy: Path, batch: int) -> None:
    """A run as if it had been stopped after this batch."""
    shutil.copytree(run, copy)
    folder = copy / "checkpoints"
    checkpoint = read_checkpoint(folder / f"step-{EARLY}.ckpt")
    for file in folder.iterdir():
        file.unlink()
    for part in ("global_step", "lr_schedulers"):
        checkpoint[part] = moved(checkpoint[part], batch)
    checkpoint["loops"]["fit_loop"] = moved(checkpoint["loops"]["fit_loop"], batch)
    write_checkpoint(checkpoint, folder / f"step-{batch}.ckpt")


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        record(Recording("billiards-easy", episodes=200, frames=64, image_size=64), root / "data")
        config = root / "c.yaml"
        described = {
            "run": str(root / "run"),
            "data": {"shards": str(root / "data"), "batch_size": 8, "clip_frames": 8},
            "encoder": {"kind": "conv", "width": 8, "channels": 8},
            "method": {"kind": "lewm", "predictor": {"hidden": 32}},
            "trainer": {"steps": 2 * EARLY, "device": "cpu", "checkpoint_every": EARLY},
        }
        config.write_text(json.dumps(described))
        subprocess.run(jepa("pretrain", config), env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)
        for batch in (EARLY, LATE):
            copy_at(root / "run", root / str(batch), batch)
        resume = "--resume"
        found: dict[str, list[float]] = {}
        for number in range(STARTS):
            fresh, early, late = (root / f"{kind}-{number}" for kind in ("fresh", EARLY, LATE))
            shutil.copytree(root / str(EARLY), early)
            shutil.copytree(root / str(LATE), late)
            for what, seconds in {
                "jepa --help": help_seconds(),
                "two steps": seconds_to(2, jepa("pretrain", config, f"run={fresh}")),
                f"two steps from batch {EARLY}": seconds_to(
                    EARLY + 2, jepa("pretrain", config, f"run={early}", resume)
                ),
                f"ten steps from batch {LATE}": seconds_to(
                    LATE + 10, jepa("pretrain", config, f"run={late}", resume, f"trainer.steps={LATE + 10}")
                ),
            }.items():
                found.setdefault(what, []).append(seconds)
        for what, each in found.items():
            sys.stdout.write(f"{what}: {statistics.median(each):.2f} s ({min(each):.2f} to {max(each):.2f})\n")


if __name__ == "__main__":
    main()
