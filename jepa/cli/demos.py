"""`jepa demo`: record, pretrain, probe, plan, report, with the same functions as the single commands."""

import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa.config import UserError, load
from jepa.config.reading import parse_json
from jepa.config.shipped import shipped_configs
from jepa.config.writing import write_text
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa_data.sources.rollouts import Recording, record
from jepa_data.writable import check_writable
from jepa_probes.imagination.config import DreamConfig
from jepa_probes.imagination.dream import dream
from jepa_probes.imagination.dream import table as dreamt
from jepa_probes.planning.config import PlanConfig
from jepa_probes.planning.plan import plan, table
from jepa_probes.probing.config import ProbeConfig
from jepa_probes.probing.online import online_probe
from jepa_probes.probing.probe import probe, state_row
from jepa_probes.reporting.report import report
from jepa_probes.reporting.results import RunResults

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Demo:
    """What is recorded, and the configs of each stage that there is.

    `before`: what the run learns from, such as a teacher: NAME of method.NAME_from, and its config.
    """

    recording: Recording
    config: str
    planning: str | None = None
    dreaming: str | None = None
    before: tuple[str, str] | None = None
    probing: str = "probe/demo.yaml"


DEFAULT = Path("runs/demo")
MARK = "demo.json"  # tells the folder of a demo from any other
BILLIARDS = Recording("billiards-easy", episodes=700)
FLICKER = Recording("billiards-flicker", episodes=1200, frames=16, image_size=32, test_share=0.25)
DEMOS = {
    "lewm": Demo(BILLIARDS, "pretrain/demo.yaml", "plan/demo.yaml"),
    "vjepa": Demo(BILLIARDS, "pretrain/demo_vjepa.yaml"),
    "vjepa21": Demo(BILLIARDS, "pretrain/demo_vjepa21.yaml"),
    "levjepa": Demo(BILLIARDS, "pretrain/demo_levjepa.yaml"),
    "salt": Demo(BILLIARDS, "pretrain/demo_salt.yaml", before=("teacher", "pretrain/demo_salt_teacher.yaml")),
    "flicker-vjepa": Demo(FLICKER, "pretrain/video/flicker_vjepa.yaml", probing="probe/flicker.yaml"),
    "flicker-levjepa": Demo(FLICKER, "pretrain/video/flicker_levjepa.yaml", probing="probe/flicker.yaml"),
    "lewm-30min": Demo(Recording("billiards-easy", episodes=2000), "pretrain/demo_30min.yaml", "plan/demo.yaml"),
    "two-rooms": Demo(
        Recording("two-rooms", episodes=1500, frames=91), "pretrain/two_rooms.yaml", "plan/two_rooms.yaml"
    ),
    "two-rooms-random-wall": Demo(
        Recording("two-rooms-random-wall", episodes=2400, frames=201, policy="mixed"),
        "pretrain/two_rooms_random_wall.yaml",
        "plan/two_rooms_random_wall.yaml",
    ),
    "point-maze": Demo(
        Recording("point-maze-umaze", episodes=1000, frames=100), "pretrain/point_maze.yaml", "plan/point_maze.yaml"
    ),
    "push-t": Demo(
        Recording("push-t", episodes=10_000, frames=101, policy="demonstrations", image_size=32, crf=0),
        "pretrain/push_t.yaml",
        "plan/push_t.yaml",
    ),
    "doom-rooms": Demo(
        Recording("doom-rooms", episodes=2000, frames=60, policy="noisy-expert"),
        "pretrain/doom/point.yaml",
        "plan/doom/walk.yaml",
        before=("encoder", "pretrain/doom/encoder.yaml"),
    ),
    "world-models": Demo(
        Recording("take-cover", episodes=1000, frames=300),
        "pretrain/take_cover/mdn_rnn.yaml",
        dreaming="dream/take_cover.yaml",
        before=("encoder", "pretrain/take_cover/vae.yaml"),
    ),
}


def check_method(name: str) -> None:
    """Raises UserError if there is no demo of the name."""
    if name not in DEMOS:
        raise UserError(f"no demo of method {name!r}; there are {', '.join(DEMOS)}")


def shipped(name: str) -> Path:
    """A config of the repository, or of the installed package."""
    path = shipped_configs() / name
    if path.is_file():
        return path
    raise UserError(f"no config is named {name}")


def folder_of(method: str, seed: int, run: Path | None = None, *, several: bool = False) -> Path:
    """Each demo has a folder of its own: `runs/demo` for the first one of the README, `runs/demo-METHOD-SEED` else.

    Args:
        run: in place of it; with `several` demos, RUN-METHOD-SEED.
    """
    if several:
        run = run or DEFAULT
        return run.with_name(f"{run.name}-{method}-{seed}")
    if run is not None:
        return run
    name = DEFAULT.name
    if (method, seed) != ("lewm", 0):
        name += f"-{method}"
    if seed:
        name += f"-{seed}"
    return DEFAULT.with_name(name)


def check_free(run: Path, *, overwrite: bool) -> None:
    """Raises UserError if a demo cannot be written to `run`, or would delete something unasked."""
    check_writable(run)
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return
    if not (run / MARK).is_file():
        raise UserError(f"{run} exists and is no demo; give another folder with --run")
    if not overwrite:
        raise UserError(
            f"{run} already holds a demo ({_mark(run)}); give another folder with --run, or --overwrite to delete it"
        )


def _mark(run: Path) -> str:
    try:
        return ", ".join(f"{name} {value}" for name, value in parse_json((run / MARK).read_text()).items())
    except (ValueError, AttributeError):
        return f"{MARK} is damaged"


def demo(
    run: Path,
    *,
    seed: int = 0,
    method: str = "lewm",
    supervised: bool = True,
    overwrite: bool = False,
    bar: bool = False,
) -> RunResults:
    """All stages into a fresh run folder.

    Args:
        overwrite: delete the demo that is there.
        supervised: probe an encoder trained on the true states, too: it takes as long as the pretraining.

    Returns:
        The results, as in RUN/results.json.

    Raises:
        UserError: there is no such method, or `run` holds something.
    """
    check_method(method)
    check_free(run, overwrite=overwrite)
    stages = _stages(run, seed, method, supervised, bar)
    if run.exists():
        shutil.rmtree(run)
    run.mkdir(parents=True)
    write_text(run / MARK, json.dumps({"method": method, "seed": seed}) + "\n")
    timings: dict[str, float] = {}
    try:
        for name, command, stage in stages:
            logger.info(f"\n$ {command}")
            began = time.perf_counter()
            stage()
            timings[name] = round(time.perf_counter() - began, 2)
            write_text(run / "timings.json", json.dumps(timings, indent=2) + "\n")
    finally:
        if [path.name for path in run.iterdir()] == [MARK]:  # nothing came of it: the folder is given back
            shutil.rmtree(run)
    logger.info(f"\n$ jepa report {run}")
    results = report(run)
    logger.info(f"{run / 'report.html'}")
    return results


Stage = tuple[str, str, Callable[[], Any]]


def _stages(run: Path, seed: int, method: str, supervised: bool, bar: bool) -> list[Stage]:
    """Name, command and work of each stage before the report."""
    recipe = DEMOS[method]
    data = run / "data"
    r = recipe.recording
    overrides = [f"data.shards={data}", f"seed={seed}"]
    probing = shipped(recipe.probing)

    def record_data() -> None:
        manifest = record(r, data)
        splits = ", ".join(f"{s.episodes} {name}" for name, s in manifest.splits.items())
        logger.info(f"{splits} episodes of {r.frames} frames")

    def pretraining(name: str, config: str, *changes: str) -> Stage:
        path = shipped(config)
        changed = [*changes, *overrides]
        resolved = load(path, PretrainConfig, changed)
        command = f"jepa pretrain {_short(path)} {' '.join(changed)}"
        return name, command, lambda: pretrain(resolved, bar=bar, probe=online_probe(resolved))

    command = f"jepa data record {r.world} {data} --episodes {r.episodes}"
    for option in ("frames", "image_size", "policy", "test_share", "crf"):
        if (value := getattr(r, option)) != getattr(Recording, option):
            command += f" --{option.replace('_', '-')} {value}"
    stages: list[Stage] = [("record", command, record_data)]
    changes = [f"run={run}"]
    if recipe.before:
        name, config = recipe.before
        stages.append(pretraining(name, config, f"run={run / name}"))
        changes.append(f"method.{name}_from={run / name}")
    stages.append(pretraining("pretrain", recipe.config, *changes))
    choices = [] if supervised else ["supervised=false"]

    def probing_run() -> None:
        logger.info(state_row(probe(run, load(probing, ProbeConfig, choices))))

    stages.append(("probe", " ".join([f"jepa probe {run} --config {_short(probing)}", *choices]), probing_run))
    if recipe.planning is not None:
        planning = shipped(recipe.planning)

        def planning_run() -> None:
            logger.info("\n".join(table(plan(run, load(planning, PlanConfig, [f"seed={seed}"])))))

        stages.append(("plan", f"jepa plan {run} --config {_short(planning)}", planning_run))
    if recipe.dreaming is not None:
        dreaming = shipped(recipe.dreaming)

        def dream_run() -> None:
            logger.info("\n".join(dreamt(dream(run, load(dreaming, DreamConfig, [f"seed={seed}"])))))

        stages.append(("dream", f"jepa dream {run} --config {_short(dreaming)}", dream_run))
    return stages


def _short(path: Path) -> str:
    return str(Path(*path.parts[path.parts.index("configs") :]))
