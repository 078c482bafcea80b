"""`jepa compare`: many models on the same data, with the same budget, by the same measures.

OUT/compare.json      all that was measured
OUT/compare.html      the tables and figures, one file
OUT/MODEL-SEED/       a cell: the run folder of what was trained, and cell.json

Cells that are finished are not run again, and one that was stopped goes on from its last checkpoint.
"""

import logging
import shutil
from pathlib import Path

from jepa.config import UserError, dump, from_dict, load
from jepa_data.printable import first_few
from jepa_data.writable import holding
from jepa_probes.comparison.cell import DESCRIPTION, ERROR
from jepa_probes.comparison.config import CellConfig, CompareConfig
from jepa_probes.comparison.expand import Job, expand
from jepa_probes.comparison.launch import LOG, make_launcher, run_jobs
from jepa_probes.comparison.page import write_page
from jepa_probes.comparison.result import CellResult, Comparison
from jepa_probes.comparison.verdicts import verdicts

logger = logging.getLogger(__name__)
MEASURED = (CellResult.FILE, "plan.json", "dream.json")
HOW = {
    "shared",
    "tokenize",
    "measure",
    "plan",
    "dream",
    "threads",
}  # settings that change what is measured, and not what is trained


def compare(config: CompareConfig, *, overwrite: bool = False) -> Comparison:
    """Run what is not finished, and write the table of all that is.

    Args:
        overwrite: delete cells that were trained with other settings; without it they are an error.

    Raises:
        UserError: parts do not fit together, as far as that is known beforehand, or no cell finished. What fails later
            is named in the result.
    """
    out = Path(config.out)
    with holding(out):
        return _compared(config, out, overwrite)


def _compared(config: CompareConfig, out: Path, overwrite: bool) -> Comparison:
    jobs = expand(config)
    launcher = make_launcher(config)
    todo = _prepared(jobs, out, overwrite)
    if len(todo) < len(jobs):
        logger.info(f"{len(jobs) - len(todo)} of {len(jobs)} cells are finished")
    failed = run_jobs(todo, out, launcher)
    cells = [CellResult.read(out / job.name) for job in jobs if job.name not in failed]
    if not cells:
        raise UserError("\n".join(f"{name}: {why}" for name, why in failed.items()))
    result = Comparison(
        cells=cells,
        failed=failed,
        verdicts=verdicts(cells),
        config=config.model_dump(mode="json", exclude={"jobs", "launcher", "submitit"}),
        cpu_seconds=round(sum(c.cpu_seconds + ((c.training and c.training.cpu_seconds) or 0) for c in cells), 1),
    )
    result.write(out)
    write_page(result, out)
    return result


def _prepared(jobs: list[Job], out: Path, overwrite: bool) -> list[Job]:
    """Cells that are not finished, with their descriptions written.

    Where other things are measured than before, the training stays. Raises UserError for trainings with other settings.
    """
    changed = list[Job]()
    for job in jobs:  # those that others read come first
        stale = (out / job.name).is_dir() and {*job.after} & {other.name for other in changed}
        if _trained_otherwise(out / job.name, job.config) or stale:
            changed.append(job)
    if changed and not overwrite:
        names = first_few([str(out / job.name) for job in changed], 5)
        raise UserError(
            f"{names}: finished or begun with other settings; give another out=FOLDER, or --overwrite to delete them"
        )
    for job in changed:
        shutil.rmtree(out / job.name)
    todo = []
    for job in jobs:
        folder = out / job.name
        if folder.is_dir() and load(folder / DESCRIPTION, CellConfig) != _as_read(job.config):
            for name in MEASURED:
                (folder / name).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DESCRIPTION).write_text(dump(job.config))
        if not (folder / CellResult.FILE).is_file():
            (folder / ERROR).unlink(missing_ok=True)
            todo.append(job)
    return todo


def _trained_otherwise(folder: Path, cell: CellConfig) -> bool:
    """Raises UserError where a folder is there that is no cell."""
    if not folder.is_dir():
        return False
    if not (folder / DESCRIPTION).is_file():
        raise UserError(f"{folder} exists and is no cell of a comparison (no {DESCRIPTION}); give another out=FOLDER")
    if {path.name for path in folder.iterdir()} <= {DESCRIPTION, ERROR, LOG}:
        return False  # it waits yet, or failed before its training
    before = load(folder / DESCRIPTION, CellConfig)
    return before.model_dump(exclude=HOW) != _as_read(cell).model_dump(exclude=HOW)


def _as_read(cell: CellConfig) -> CellConfig:
    """As it would be read from its file. Files of earlier versions lack the settings that came later."""
    return from_dict(cell.model_dump(mode="json"), CellConfig)
