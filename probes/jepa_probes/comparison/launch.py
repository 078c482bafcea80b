"""Runs the cells of a comparison, as many at a time as there is room for; one that fails costs itself.

waiting ──its others are done──> running ──> done
                                         └─> failed: those that come after it are not run
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from jepa.config import first_line
from jepa.training.launch import make_executor
from jepa_data.process_pool import cores
from jepa_probes.comparison.cell import ERROR, run_or_explain
from jepa_probes.comparison.config import CompareConfig
from jepa_probes.comparison.expand import Job

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.2
LOG = "log.txt"
CODE = "import sys; from jepa_probes.comparison.launch import run_process; run_process(sys.argv[1])"


class Running(Protocol):
    """A cell that was started."""

    def done(self) -> bool: ...

    def problem(self) -> str | None:
        """Why it left no result, once it is done; None if it left one, or says itself in CELL/error.txt."""
        ...

    def stop(self) -> None: ...


class Launcher(Protocol):
    """Starts cells. `jobs`: how many at a time; None: any number."""

    jobs: int | None

    def start(self, folder: Path) -> Running: ...


def make_launcher(config: CompareConfig) -> Launcher:
    """The launcher that a config names. Raises UserError where submitit is not installed."""
    match config.launcher:
        case "inline":
            return Inline()
        case "slurm":
            return Submitit(Path(config.out) / "slurm", dict(config.submitit), config.jobs)
        case _:
            room = torch.cuda.device_count() or max(1, cores() // config.threads)
            return Local(config.jobs or room, config.threads)


def run_jobs(jobs: Sequence[Job], out: Path, launcher: Launcher) -> dict[str, str]:
    """Run all, each after those that it reads.

    Returns:
        Why cells failed, by name.
    """
    waiting = {job.name: job for job in jobs}
    running: dict[str, Running] = {}
    failed: dict[str, str] = {}
    finished = 0
    try:
        while waiting or running:
            for name, job in list(waiting.items()):
                if lost := [other for other in job.after if other in failed]:
                    failed[name] = f"not run, for it needs {', '.join(lost)}"
                    del waiting[name]
                elif {*job.after} & {*waiting, *running} or (launcher.jobs and len(running) >= launcher.jobs):
                    continue
                else:
                    logger.info(f"{name}: started")
                    del waiting[name]
                    running[name] = launcher.start(out / name)
            for name, process in list(running.items()):
                if not process.done():
                    continue
                del running[name]
                finished += 1
                if (problem := process.problem() or _explained(out / name)) is not None:
                    failed[name] = problem
                    logger.error(f"{name}: {problem}")
                else:
                    logger.info(f"{name}: done, {finished} of {len(jobs)}")
            time.sleep(POLL_SECONDS if running else 0)
    finally:
        for process in running.values():
            process.stop()
    return failed


def _explained(folder: Path) -> str | None:
    """What CELL/error.txt says."""
    path = folder / ERROR
    return path.read_text().strip() if path.is_file() else None


class Inline:
    """In this process, one after the other."""

    jobs: int | None = 1

    def start(self, folder: Path) -> Running:
        run_or_explain(str(folder))
        return Finished()


class Finished:
    """A cell that is done."""

    def done(self) -> bool:
        return True

    def problem(self) -> str | None:
        return None

    def stop(self) -> None:
        """Nothing is left to stop."""


class Local:
    """A process for each cell, on one of the GPUs where there are any; what it prints goes to CELL/log.txt."""

    def __init__(self, jobs: int, threads: int) -> None:
        self.jobs: int | None = jobs
        self.threads = threads
        self.started = 0

    def start(self, folder: Path) -> Running:
        env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        env |= {"OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        if (devices := torch.cuda.device_count()) > 1:
            env["CUDA_VISIBLE_DEVICES"] = str(self.started % devices)
        self.started += 1
        with (folder / LOG).open("a") as log:
            process = subprocess.Popen([sys.executable, "-P", "-c", CODE, str(folder)], env=env, stdout=log, stderr=log)
        return Process(process, folder)


class Process:
    """A cell in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder

    def done(self) -> bool:
        return self.process.poll() is not None

    def problem(self) -> str | None:
        code = self.process.returncode
        if code >= 0 and (code == 0 or _explained(self.folder) is not None):
            return None
        how = f"was killed by signal {-code} (is there enough memory? lower jobs)" if code < 0 else f"ended with {code}"
        return f"its process {how}; see {self.folder / LOG}"

    def stop(self) -> None:
        self.process.kill()  # Lightning may let SIGTERM wait; checkpoints are whole at any time
        self.process.wait()


def run_process(folder: str) -> None:
    """What the process of a cell does."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(0 if run_or_explain(folder) else 1)


class Submitit:
    """A job of Slurm for each cell, `jobs` at a time, by the executor of `jepa.training.launch`."""

    def __init__(
        self, folder: Path, parameters: dict[str, Any], jobs: int | None = None, cluster: str = "slurm"
    ) -> None:
        self.jobs = jobs
        self.executor = make_executor(folder, parameters, cluster)

    def start(self, folder: Path) -> Running:
        return SubmittedJob(self.executor.submit(run_or_explain, str(folder)))


class SubmittedJob:
    """A cell in a job of submitit."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def done(self) -> bool:
        return self.job.done()

    def problem(self) -> str | None:
        if (error := self.job.exception()) is None:
            return None
        return f"its job {self.job.job_id} failed: {first_line(error)}; see {self.job.paths.stderr}"

    def stop(self) -> None:
        self.job.cancel()
