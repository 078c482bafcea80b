"""The folder of a run: whether a run may begin in it, and what is left of a start that failed.

A folder is claimed when all that can be built has been built, and given back if not one step is taken: the corrected
command works in the same folder.
"""

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

from jepa.config import UserError, load
from jepa.training.checkpoints import FOLDER as CHECKPOINTS
from jepa.training.config import PretrainConfig
from jepa_data.writable import check_writable, replacing

DESCRIPTION = "config.yaml"
LOGS = "logs"
METRICS = "logs/metrics.csv"
# What the verbs write of a model: it goes, once the model is replaced by another one.
WRITTEN = (
    DESCRIPTION,
    CHECKPOINTS,
    LOGS,
    "model",
    "pretrain.json",
    "features",
    "probe.json",
    "plan.json",
    "plan.yaml",
    "dream",
    "dream.json",
    "figures",
    "results.json",
    "report.html",
)


def run_config(run: Path) -> PretrainConfig:
    """What a run was trained by. Raises UserError where a folder holds a model alone."""
    if not (run / DESCRIPTION).is_file():
        raise UserError(f"{run}: a model without a run (no {DESCRIPTION}); give a folder that `jepa pretrain` wrote")
    return load(run / DESCRIPTION, PretrainConfig)


def check_free(run: Path, *, overwrite: bool) -> None:
    """Raises UserError if `run` cannot be written, or holds what a new run would delete, unless it may `overwrite`."""
    check_writable(run)
    if overwrite:
        return
    if (run / DESCRIPTION).exists():
        raise UserError(f"{run} already holds a run; give another run=FOLDER, or --resume, or --overwrite")
    if files := [name for name in WRITTEN if _has_files(run / name)]:
        raise UserError(
            f"{run} is not the folder of a run (no {DESCRIPTION}), and holds what a run would replace: "
            f"{', '.join(files)}. Give another run=FOLDER, or delete them with --overwrite"
        )


@dataclass(frozen=True)
class Claim:
    """A folder that is a run's own.

    Attributes:
        before: the config.yaml of the run that is resumed; None for a new run.
        made: whether the folder was not there before.
        metrics: rows of its metrics.csv.
    """

    run: Path
    before: str | None
    made: bool
    metrics: list[dict[str, str]]

    def release(self) -> None:
        """Give the folder back as it was; what a new run has replaced is gone."""
        if self.before is not None:
            with replacing(self.run / DESCRIPTION) as partial:
                partial.write_text(self.before)
            return
        for name in (DESCRIPTION, LOGS, CHECKPOINTS):
            _remove(self.run / name)
        if self.made and not any(self.run.iterdir()):
            self.run.rmdir()

    def prepend_metrics(self) -> None:
        """Put the rows of the part before a resume in front: Lightning's logger starts its file from scratch."""
        later = _read_metrics(self.run)
        if not self.metrics or not later:
            return
        first = int(later[0]["step"])
        rows = [row for row in self.metrics if int(row["step"]) < first] + later
        names = list(dict.fromkeys(name for row in rows for name in row))
        with (self.run / METRICS).open("w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(rows)


def claim(run: Path, description: str, *, resume: bool) -> Claim:
    """Write config.yaml; what an earlier run left goes, unless it is resumed."""
    before = (run / DESCRIPTION).read_text() if resume else None
    if not resume:
        for name in WRITTEN:
            _remove(run / name)
    made = not run.is_dir()
    run.mkdir(parents=True, exist_ok=True)
    with replacing(run / DESCRIPTION) as partial:
        partial.write_text(description)
    return Claim(run, before, made, _read_metrics(run))


def _read_metrics(run: Path) -> list[dict[str, str]]:
    if not (run / METRICS).is_file():
        return []
    with (run / METRICS).open(newline="") as file:
        return list(csv.DictReader(file))


def _has_files(path: Path) -> bool:
    if path.is_dir():
        return any(not below.is_dir() for below in path.rglob("*"))
    return path.exists() or path.is_symlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
