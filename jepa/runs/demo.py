"""`jepa demo`: record, pretrain, probe, plan, report, with the same functions as the single commands."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jepa.config import UserError, load
from jepa.runs.plan import plan
from jepa.runs.pretrain import pretrain
from jepa.runs.probe import probe, state_row
from jepa.runs.report import report
from jepa.runs.schema import PlanConfig, PretrainConfig, ProbeConfig
from jepa_data.sources.rollouts import Recording, record

# What each demo records, and which config pretrains on it.
DEMOS = {
    "lewm": (Recording("billiards-easy", episodes=700), "pretrain/demo.yaml"),
    "vjepa": (Recording("billiards-easy", episodes=700), "pretrain/demo_vjepa.yaml"),
    "levjepa": (Recording("billiards-easy", episodes=700), "pretrain/demo_levjepa.yaml"),
    "lewm-30min": (Recording("billiards-easy", episodes=2000), "pretrain/demo_30min.yaml"),
}


def shipped(name: str) -> Path:
    """A config of the repository, or of the installed package."""
    package = Path(__file__).parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"no config is named {name}")


def demo(
    run: Path, *, seed: int = 0, method: str = "lewm", say: Callable[[str], None] = print, bar: bool = False
) -> dict[str, Any]:
    """All stages into a fresh run folder; what was in it before is removed.

    Returns:
        The results, as in RUN/results.json.

    Raises:
        UserError: there is no such method, or `run` holds something that is no demo.
    """
    if method not in DEMOS:
        raise UserError(f"no demo of method {method!r}; there are {', '.join(DEMOS)}")
    if run.exists():
        if not (run / "demo.json").is_file():
            raise UserError(f"{run} exists and is no demo; give another folder with --run")
        shutil.rmtree(run)
    run.mkdir(parents=True)
    (run / "demo.json").write_text(json.dumps({"method": method, "seed": seed}) + "\n")
    stages = _stages(run, seed, method, say, bar)
    timings: dict[str, float] = {}
    for name, command, stage in stages:
        say(f"\n$ {command}")
        began = time.perf_counter()
        stage()
        timings[name] = round(time.perf_counter() - began, 2)
        (run / "timings.json").write_text(json.dumps(timings, indent=2) + "\n")
    say(f"\n$ jepa report {run}")
    return report(run, say=say)


Stage = tuple[str, str, Callable[[], Any]]


def _stages(run: Path, seed: int, method: str, say: Callable[[str], None], bar: bool) -> list[Stage]:
    """Name, command and work of each stage before the report."""
    configs = [shipped(f"{kind}/demo.yaml") for kind in ("probe", "plan")]
    r, config = DEMOS[method]
    pretraining, data = shipped(config), run / "data"
    overrides = [f"run={run}", f"data.shards={data}", f"seed={seed}"]
    described = load(pretraining, PretrainConfig, overrides)

    def record_data() -> None:
        manifest = record(r, data)
        say(f"{', '.join(f'{s.episodes} {name}' for name, s in manifest.splits.items())} episodes of {r.frames} frames")

    stages: list[Stage] = [
        ("record", f"jepa data record {r.world} {data} --episodes {r.episodes}", record_data),
        (
            "pretrain",
            f"jepa pretrain {_short(pretraining)} {' '.join(overrides)}",
            lambda: pretrain(described, say=say, bar=bar),
        ),
        (
            "probe",
            f"jepa probe {run} --config {_short(configs[0])}",
            lambda: say(state_row(probe(run, load(configs[0], ProbeConfig), say=say))),
        ),
    ]
    if described.method.kind == "lewm":
        stages.append(
            (
                "plan",
                f"jepa plan {run} --config {_short(configs[1])}",
                lambda: plan(run, load(configs[1], PlanConfig, [f"seed={seed}"]), say=say),
            )
        )
    return stages


def _short(path: Path) -> str:
    return str(Path(*path.parts[path.parts.index("configs") :]))
