"""`jepa launch`: runs of one config as jobs of Slurm, or as processes of this machine: one for each seed.

    config ──> run RUN-0 ──> job ─ task ─ jepa pretrain        nodes x devices tasks on Slurm
          └──> run RUN-1 ──> job ...                           a job whose time is up: saved, queued again, resumed

A task runs the command `jepa pretrain` and hands signals to it. Where Slurm is about to end a job, or has preempted it,
it sends SIGUSR1: the step at hand ends, the state is saved, and submitit puts the job back into the queue.
"""

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

from pydantic import Field

from jepa.config import Config, UserError, dump, first_line
from jepa.config.fields import Count
from jepa.config.writing import write_text
from jepa.training.callbacks.stopping import STOPPED
from jepa.training.config import PretrainConfig
from jepa.training.run_state.run_folder import DESCRIPTION

logger = logging.getLogger(__name__)
REQUEUES = 1000  # after time-outs
WEEK = 7 * 24 * 60  # minutes that a local job may take
SECONDS_TO_SAVE = 120  # from Slurm's signal to the end of a job


class LaunchConfig(Config):
    """How runs are started; `submitit.KEY=VALUE` on the command line."""

    seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    jobs: Count | None = None
    submitit: dict[str, str | int | float] = Field(default={}, description="parameters of submitit")


@dataclass(frozen=True)
class Launched:
    """A run that was started.

    Attributes:
        run: its folder.
        job: submitit's.
    """

    run: Path
    job: Any

    def wait(self) -> str | None:
        """Wait for its end; why it failed, None if it did not."""
        if (error := self.job.exception()) is None:
            return None
        log = self.job.paths.stderr
        said = [line for line in log.read_text().splitlines() if line.startswith("error: ")] if log.is_file() else []
        reason = said[0].removeprefix("error: ") if said else last_line(error)
        return f"{self.run}: {reason}; see {log}"

    def stop(self) -> None:
        """Tell a local job to save its state and to end."""
        with suppress(ProcessLookupError):
            os.kill(int(self.job.job_id), signal.SIGTERM)


def launch(
    config: PretrainConfig, options: LaunchConfig, cluster: Literal["slurm", "local"], *, resume: bool = False
) -> list[Launched]:
    """Start a run for each seed, of the folder RUN-SEED; without seeds the run itself.

    Scripts and logs of the jobs are in RUN.jobs.

    Args:
        resume: go on with runs that are there.

    Raises:
        UserError: submitit is not installed or there is no Slurm, a parameter is wrong, a seed is named twice, a run
            is there already, or `jobs` is given for processes of this machine.
    """
    if options.jobs is not None and cluster == "local":
        raise UserError("--jobs limits the jobs of Slurm; add --slurm, or leave it out: here all runs start at once")
    if len(set(options.seeds)) < len(options.seeds):
        raise UserError(f"seeds: {', '.join(map(str, options.seeds))}: one is named twice")
    wanted = [config.model_copy(update={"run": f"{config.run}-{n}", "seed": n}) for n in options.seeds] or [config]
    for each in wanted:
        if Path(each.run, DESCRIPTION).is_file() and not resume:
            raise UserError(f"{each.run} holds a run. Go on with it (--resume), or give another folder (run=FOLDER)")
    folder = Path(f"{config.run}.jobs").absolute()
    executor = make_executor(folder, _parameters(config, options, cluster), cluster)
    folder.mkdir(parents=True, exist_ok=True)
    attempts = []
    for each in wanted:
        file = folder / f"{Path(each.run).name}.yaml"
        write_text(file, dump(each))
        attempts.append(Attempt(str(file), each.run, os.getcwd()))
    with _deaf_to_ctrl_c(), executor.batch():  # an array of jobs
        jobs = [executor.submit(attempt) for attempt in attempts]
    return [Launched(Path(each.run), job) for each, job in zip(wanted, jobs, strict=True)]


def wait(launched: list[Launched]) -> list[str]:
    """Wait for local jobs. SIGTERM and Ctrl-C are handed on: each job ends its step, saves its state and ends.

    Returns:
        Why runs failed, a line each.

    Raises:
        KeyboardInterrupt, SystemExit: a signal came; all jobs have ended.
    """
    received: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each in launched:
            each.stop()

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        problems = [problem for each in launched if (problem := each.wait()) is not None]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        logger.info("stopped; runs that had taken a step have saved their state, and --resume goes on with them")
        if received[0] == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(STOPPED)
    return problems


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that start here do not end by a terminal's Ctrl-C, which reaches all of them: `wait` hands it on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def make_executor(folder: Path, parameters: dict[str, Any], cluster: str) -> Any:
    """What submits functions as jobs, by submitit.

    Args:
        folder: for scripts and logs of jobs; one that all machines see.
        parameters: of submitit.
        cluster: "slurm", or "local" for processes on this machine.

    Raises:
        UserError: it is not installed, there is no Slurm, or a parameter is wrong.
    """
    if importlib.util.find_spec("submitit") is None:
        raise UserError("jobs are submitted by submitit, which is not installed: pip install 'openjepa[slurm]'")
    import submitit  # pyright: ignore[reportMissingImports]

    # A loader's worker dies of USR2, submitit's own choice. The jobs read it from their environment.
    submitit.JobEnvironment.USR_SIG = os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=REQUEUES)
        executor.update_parameters(**parameters)
    except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
        with suppress(OSError):  # what it had made for the jobs; it stays where there is something in it
            folder.rmdir()
        raise UserError(f"submitit: {first_line(error)}") from None
    return executor


def _parameters(config: PretrainConfig, options: LaunchConfig, cluster: str) -> dict[str, Any]:
    """Of submitit: what the config says of machines and devices, and what the user says."""
    t = config.trainer
    gpus = 0 if t.device == "cpu" else t.devices
    if cluster == "local":  # one process, which starts the others
        return {"tasks_per_node": 1, "gpus_per_node": gpus, "timeout_min": WEEK} | options.submitit
    shape = {"nodes": t.nodes, "tasks_per_node": t.devices, "cpus_per_task": 1 + config.data.workers}
    shape |= {"gpus_per_node": gpus} if gpus else {}
    shape |= {"name": Path(config.run).name, "slurm_signal_delay_s": SECONDS_TO_SAVE}
    shape |= {"slurm_array_parallelism": options.jobs} if options.jobs else {}
    return shape | options.submitit


@dataclass
class Attempt:
    """What a task of a job does: `jepa pretrain`, from where the run stands.

    Args:
        config: file that describes the run.
        run: its folder, from the working directory `directory`.
    """

    config: str
    run: str
    directory: str
    process: "subprocess.Popen[bytes] | None" = field(default=None, compare=False)

    def __call__(self) -> None:
        """Raises RuntimeError if the run fails."""
        command = [sys.executable, "-m", "jepa.cli", "pretrain", self.config]
        if Path(self.directory, self.run, DESCRIPTION).is_file():
            command.append("--resume")
        env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(command, cwd=self.directory, env=env)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hand_on)
        if code := self.process.wait():
            raise RuntimeError(f"jepa pretrain ended with exit code {code}")

    def checkpoint(self) -> Any:
        """submitit calls this when the time of the job is up, and queues what it returns."""
        import submitit  # pyright: ignore[reportMissingImports]

        if self.process is not None:
            os.kill(self.process.pid, signal.SIGUSR1)
            # A signal handler, in the middle of the `wait` above, which holds a lock: so another way to wait.
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Attempt(self.config, self.run, self.directory))

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        if self.process is not None:
            os.kill(self.process.pid, number)  # send_signal polls, which takes the lock of `wait`


def last_line(error: Exception) -> str:
    """Of what submitit says of a job that failed: the error itself, at the end of a traceback."""
    text = str(error).partition("You can check full logs")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    return lines[-1] if lines else type(error).__name__
