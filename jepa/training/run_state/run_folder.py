"""The folder of a run: whether a run may begin in it, and what is left of a start that failed.

A folder is claimed when all that can be built has been built, and given back if not one step is taken: the corrected
command works in the same folder.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from jepa.config import UserError, load
from jepa.config.writing import PARTIAL, write_text
from jepa.training.config import PretrainConfig
from jepa.training.run_state.checkpoints import FOLDER as CHECKPOINTS
from jepa.training.run_state.metrics_log import keep_before

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
    "decoder.json",
    "decoder.png",
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
    """Raises UserError if `run` holds another run, unless it may `overwrite` that, or foreign files that would go."""
    if (run / DESCRIPTION).exists():
        if overwrite:
            return
        raise UserError(f"{run} already holds a run; give another run=FOLDER, or --resume, or --overwrite")
    if files := [name for name in WRITTEN if _has_files(run / name)]:
        raise UserError(
            f"{run} is not the folder of a run (no {DESCRIPTION}), and holds what a run would replace: "
            f"{', '.join(files)}. Give another run=FOLDER, or move them away"
        )


@dataclass(frozen=True)
class Claim:
    """A folder that is a run's own.

    Attributes:
        before: the config.yaml of the run that is resumed; None for a new run.
    """

    run: Path
    before: str | None

    def release(self) -> None:
        """Give the folder back as it was; what a new run has replaced is gone."""
        if self.before is not None:
            write_text(self.run / DESCRIPTION, self.before)
            return
        for name in (DESCRIPTION, LOGS, CHECKPOINTS):
            _remove(self.run / name)


def claim(run: Path, description: str, *, resume_step: int | None) -> Claim:
    """Write config.yaml; what an earlier run left goes, unless it is resumed: then what it logged after the step goes.

    The config goes last: a folder whose clearing was cut short is still that of a run.
    """
    before = None
    if resume_step is None:
        for name in WRITTEN:
            if name != DESCRIPTION:
                _remove(run / name)
    else:
        before = (run / DESCRIPTION).read_text()
        keep_before(run / METRICS, resume_step)
        for path in (run / CHECKPOINTS).glob(f"*{PARTIAL}"):  # of a process that was killed while it saved
            _remove(path)
    write_text(run / DESCRIPTION, description)
    return Claim(run, before)


def _has_files(path: Path) -> bool:
    if path.is_dir():
        return any(not below.is_dir() for below in path.rglob("*"))
    return path.exists() or path.is_symlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
