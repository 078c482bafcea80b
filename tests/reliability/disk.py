"""Full and read-only disks: one line and exit code 2, what was there still loads, and the run goes on with more space.

The disk is a small file system in memory, which only root may mount.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jepa.training.run_state.checkpoints import FOLDER, newest_whole
from tests.reliability.counts import Counts
from tests.reliability.processes import Ended, command, forked
from tests.reliability.tiny import corpus, describe, losses, succeed, weights, write_config

ENOUGH = 64 * 2**20
PAGE = 4096
# {out}: the small disk; {run}: a copy of a run on it.
COMMANDS = {
    "data record": "data record billiards-easy {out}/shards --episodes 6 --frames 12 --image-size 32",
    "data pack": "data pack {shards} {out}/packed",
    "data curate": "data curate {shards} {out}/curated --config {curate}",
    "data tokenize": "data tokenize {shards} {out}/latents --model {model}",
    "data index": "data index {tars} --overwrite",
    "embed": "embed {shards} --model {model} --out {out}/features.npz",
    "embed, as shards": "embed {shards} --model {model} --out {out}/features",
    "embed, as parquet": "embed {shards} --model {model} --out {out}/features.parquet",
    "probe": "probe {run} supervised=false train_episodes=12",
    "decoder": "decoder {run} steps=5",
    "imagine": "imagine {run} --out {out}/future.mp4",
    "report": "report {run}",
    "curves": "curves {run} --out {out}/curves.png",
    "export": "export {run} --to openjepa --out {out}/exported",
    "compress": "compress {model} {out}/compressed --keep pca:8 train_episodes=12",
    "plan": "plan {run} tasks=2 steps=4 horizon=2 gifs=1 inverse=null "
    "planner.samples=8 planner.elites=2 planner.iterations=1",
    "diagnose": "diagnose {run} tasks=2 read_updates=3 state_updates=3 starts=2 candidates=4 plan.steps=4 "
    "plan.horizon=2 plan.planner.samples=8 plan.planner.elites=2 plan.planner.iterations=1",
    "dream": "dream {run} tasks=2 steps=6 clips=6 controller.kind=evolution controller.generations=1 "
    "controller.population=4 controller.rollouts=2 controller.horizon=2",
    "online": "online {online} run={out}/online",
    "compare": "compare {compare} out={out}/compared",
}
ONLINE = {
    "environment": {"world": "two-rooms", "image_size": 32, "max_steps": 8, "goal": [0.2, 0.3]},
    "encoder": {"channels": [4, 8]},
    "method": {
        "kind": "dreamer",
        "predictor": {"recurrent_size": 16, "hidden": 16, "blocks": 4, "categoricals": 4, "classes": 4},
        "decoder_channels": 4,
    },
    "controller": {"horizon": 3, "batch": 4, "hidden": 16},
    "replay": {"batch_size": 2, "sequence_frames": 6, "capacity": 60},
    "steps": 40,
    "random_steps": 16,
    "train_ratio": 2,
    "evaluate_every": 20,
    "evaluation_episodes": 2,
    "checkpoint_every": 10,
    "device": "cpu",
}


def run(folder: Path, count: int) -> Counts:
    """A training on disks with too little space, each with a little more than the one before; then with enough."""
    counts = Counts()
    shards = corpus(folder)
    whole = folder / "whole"
    config = describe(whole, shards, trainer__checkpoint_every=2)
    succeed(command("pretrain", write_config(folder / "whole.yaml", config)))
    size = _size(whole)
    disk = folder / "disk"
    for number in range(count):
        space = PAGE * (1 + round(size * 1.3 / PAGE * number / count))
        with _disk(disk, space) as problem:
            if problem:
                counts.skipped = problem
                return counts
            _fill_and_go_on(folder, disk, config, whole, space, counts)
    return counts


def _fill_and_go_on(folder: Path, disk: Path, config: dict[str, Any], whole: Path, space: int, counts: Counts) -> None:
    run, file = disk / "run", folder / "config.yaml"
    write_config(file, config | {"run": str(run)})
    ended = command("pretrain", file)
    if ended.code == 0:
        counts.add("trainings that had enough space")
    else:
        counts.check("full disk: exit code 2 and one line", ended.is_refused, f"{space} bytes: {_told(ended)}")
    if list((run / FOLDER).glob("*.ckpt")):
        loaded = forked(lambda: _check(run / FOLDER))
        counts.check("full disk: the checkpoint before still loads", not loaded.code, f"{space}: {loaded.last_line}")
    subprocess.run(["mount", "-o", f"remount,size={ENOUGH}", str(disk)], check=True)
    resume = ["--resume"] if (run / "config.yaml").is_file() else []
    again = command("pretrain", file, *resume)
    same = not again.code and weights(run) == weights(whole) and losses(run) == losses(whole)
    counts.check("with more space: the weights and losses of a whole run", same, f"{space}: {_told(again)}")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for words in ([], ["--resume", "trainer.steps=10"], ["--overwrite"]):
        ended = command("pretrain", file, *words)
        counts.check("read-only: exit code 2 and one line", ended.is_refused, f"{words}: {_told(ended)}")
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def _check(folder: Path) -> None:
    newest_whole(folder)


def commands(folder: Path, count: int) -> Counts:
    """Every command that writes, on `count` disks that are too small for it, and on one that is read-only."""
    counts = Counts()
    shards = corpus(folder, frames=24)
    model = folder / "model"
    succeed(command("pretrain", write_config(folder / "model.yaml", describe(model, shards))))
    succeed(command("decoder", model, "steps=5"))  # which others use, or would fit for minutes
    (folder / "curate.yaml").write_text("stages: [{kind: dark}]\n")
    compared = {name: value for name, value in describe(model, shards).items() if name != "run"}
    comparison = {"seeds": [0], "budget": {"steps": 2}, "plan": None, "baselines": [], "reference": None}
    comparison |= {"base": compared | {"trainer": {"device": "cpu"}}, "models": {"one": {}}}
    paths = {"shards": shards, "model": model, "curate": folder / "curate.yaml"}
    paths["online"] = write_config(folder / "online.yaml", ONLINE | {"run": str(folder / "online")})
    paths["compare"] = write_config(folder / "compare.yaml", comparison | {"out": str(folder / "compared")})
    for name, words in COMMANDS.items():
        _one_command(name, words, folder / "disk", paths, count, counts)
        if counts.skipped:
            break
    return counts


def _one_command(name: str, words: str, disk: Path, paths: dict[str, Path], count: int, counts: Counts) -> None:
    there = {"out": disk, "run": disk / "run", "tars": disk / "tars"}
    filled = [word.format(**paths, **there) for word in words.split()]

    def prepare() -> int:
        if "{run}" in words:
            shutil.copytree(paths["model"], disk / "run")
        if "{tars}" in words:
            shutil.copytree(paths["shards"], disk / "tars")
        return _size(disk)

    with _disk(disk, ENOUGH) as problem:
        counts.skipped = problem
        if problem:
            return
        before = prepare()
        ended = command(*filled)
        size = _size(disk) - before
        if ended.code:
            counts.check("with enough space it ends well", False, f"{name}: {_told(ended)}")
            return
        counts.add("commands")
    for number in range(count):
        with _disk(disk, ENOUGH):
            before = prepare()
            space = max(PAGE, before + PAGE * round(size / PAGE * number / count))  # 0 would be no limit
            subprocess.run(["mount", "-o", f"remount,size={space}", str(disk)], check=True)
            ended = command(*filled)
            if ended.code == 0:
                counts.add("tries that had enough space")
                continue
            where = f"{name}: {space - before}: {_told(ended)}"
            counts.check("full disk: exit code 2 and one line", ended.is_refused, where)
    with _disk(disk, ENOUGH):
        prepare()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        ended = command(*filled)
        counts.check("read-only: exit code 2 and one line", ended.is_refused, f"{name}: {_told(ended)}")


def _told(ended: Ended) -> str:
    return f"exit code {ended.code}: {ended.errors[-2500:] if ended.has_traceback else ended.last_line}"


def _size(folder: Path) -> int:
    """Bytes on the disk."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


@contextmanager
def _disk(folder: Path, size: int) -> Iterator[str]:
    """A file system of so many bytes; why there is none where it may not be mounted."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        yield f"a small file system cannot be mounted here: {error}"
        return
    if mounted.returncode:
        yield f"a small file system cannot be mounted here: {mounted.stderr.strip()}"
        return
    try:
        yield ""
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
