"""`kill -9` at random moments, some of them while a checkpoint is saved: the run that is resumed is the same run.

One run in ten is killed ten times before its last step. A tenth of the kills happen in a save, at one of five places.
"""

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jepa.training.run_state import checkpoint_file, checkpoints
from tests.reliability.counts import Counts
from tests.reliability.processes import Child, forked, tell
from tests.reliability.tiny import corpus, describe, differences, succeed, train

STEPS = 60
EVERY = 4  # steps between two checkpoints
KILLS = 10  # of a run
WORKERS = (0, 1, 4, 0, 0)  # of the runs


def run(folder: Path, count: int) -> Counts:
    """Kill so often."""
    counts = Counts()
    shards = corpus(folder)
    whole = folder / "whole"
    succeed(forked(lambda: train(_config(whole, shards, 0))))
    for number, first in enumerate(range(0, count, KILLS)):
        workers = WORKERS[number % len(WORKERS)]
        killed = folder / f"killed-{number}"
        steps = _kill_often(killed, shards, workers, min(KILLS, count - first), number, counts)
        ended = forked(lambda killed=killed, workers=workers: train(_config(killed, shards, workers), resume=True))
        wrong = [f"exit code {ended.code}: {ended.last_line}"] if ended.code else differences(whole, killed)
        counts.check("runs end as if never killed", not wrong, f"{workers} workers, killed at {steps}: {wrong}")
    return counts


def run_elsewhere(folder: Path, count: int) -> Counts:
    """The same for a run on another file system than that of temporary files: only kills in a save."""
    counts = Counts()
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == folder.stat().st_dev:
        counts.skipped = "there is no second file system"
        return counts
    shards = corpus(folder)
    temporary = folder / "temporary"
    temporary.mkdir()
    with tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        whole, killed = Path(elsewhere, "whole"), Path(elsewhere, "killed")
        succeed(forked(lambda: train(_config(whole, shards, 0))))
        for kill in range(count):
            place = list(PLACES)[kill % len(PLACES)]
            child = Child(lambda place=place, kill=kill: _in(temporary, lambda: _die(killed, shards, place, kill > 0)))
            _killed_in_save(child, killed, place, counts)
        succeed(forked(lambda: _in(temporary, lambda: train(_config(killed, shards, 0), resume=True))))
        wrong = differences(whole, killed)
        counts.check("runs end as if never killed", not wrong, f"killed in a save: {wrong}")
        left = [path for path in [*temporary.iterdir(), *killed.rglob("*.partial")] if "pymp" not in path.name]
        counts.check("nothing is left of a save", not left, f"{[path.name for path in left]}")
    return counts


def _in(temporary: Path, work: Callable[[], None]) -> None:
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    work()


def _config(run: Path, shards: Path, workers: int) -> dict[str, Any]:
    return describe(run, shards, trainer__steps=STEPS, trainer__checkpoint_every=EVERY, data__workers=workers)


def _kill_often(run: Path, shards: Path, workers: int, kills: int, seed: int, counts: Counts) -> list[int]:
    """Start and kill a run so often; the steps at which it was killed."""
    draw = random.Random(seed)
    steps = sorted(draw.sample(range(1, STEPS - 1), kills))
    in_save = draw.randrange(1, kills) if kills > 1 else 0
    for kill, step in enumerate(steps):
        resume = (run / "config.yaml").is_file()
        if kill == in_save:
            place = list(PLACES)[seed % len(PLACES)]
            child = Child(lambda place=place, resume=resume: _die(run, shards, place, resume, workers))
            _killed_in_save(child, run, place, counts)
            continue
        child = Child(lambda resume=resume: train(_config(run, shards, workers), resume=resume))
        while (line := child.line()) is not None and int(line.split()[1]) < step:
            pass
        time.sleep(draw.random() * 0.05)  # somewhere in the step, or the next one
        child.send(signal.SIGKILL)
        ended = child.wait()
        counts.check("kill -9 at a random moment", ended.code == -signal.SIGKILL, f"step {step}: {ended.last_line}")
    return steps


# ---- kills in a save -------------------------------------------------------------------------------------------------


def _killed_in_save(child: Child, run: Path, place: str, counts: Counts) -> None:
    """Wait for its end; the newest checkpoint must be a whole one."""
    said = []
    while (line := child.line()) is not None:
        said.append(line)
    ended = child.wait()
    died = ended.code == -signal.SIGKILL and said[-1:] == [place]
    counts.check("kill -9 in a save", died, f"{place}: exit code {ended.code}, {said[-1:]}: {ended.last_line}")
    folder = run / checkpoints.FOLDER
    if (folder / checkpoints.LAST).exists():
        checked = forked(lambda: _check_newest(folder))
        counts.check("last.ckpt is whole after a kill in a save", not checked.code, f"{place}: {checked.last_line}")


def _check_newest(folder: Path) -> None:
    _, _, why = checkpoints.newest_whole(folder)
    if why:
        raise RuntimeError(why)


def _die(run: Path, shards: Path, place: str, resume: bool, workers: int = 0) -> None:
    """Train until the second save, and die at this place of it."""
    seen = list[int]()

    def kill() -> None:
        seen.append(0)
        if len(seen) == 2:
            tell(place)
            os.kill(os.getpid(), signal.SIGKILL)

    with PLACES[place](kill):
        train(_config(run, shards, workers), resume=resume)


@contextmanager
def _patched(where: Any, name: str, kill: Callable[[], None], after: bool = False) -> Any:
    """Call `kill` before, or after, a function of the saving."""
    function = getattr(where, name)

    def patched(*args: Any, **kwargs: Any) -> Any:
        if not after:
            kill()
        result = function(*args, **kwargs)
        if after:
            kill()
        return result

    setattr(where, name, patched)
    yield
    setattr(where, name, function)


@contextmanager
def _half(kill: Callable[[], None]) -> Any:
    """Half of the file is on the disk."""
    save = checkpoint_file.torch.save

    def halved(checkpoint: Any, file: Any) -> None:
        save(checkpoint, file)
        size = file.tell()
        file.truncate(size // 2)
        file.flush()
        kill()
        file.truncate(0)
        file.seek(0)
        save(checkpoint, file)

    checkpoint_file.torch.save = halved
    yield
    checkpoint_file.torch.save = save


PLACES: dict[str, Callable[[Callable[[], None]], Any]] = {
    "half written": _half,
    "written, not sealed": lambda kill: _patched(checkpoint_file, "_seal", kill),
    "sealed, not renamed": lambda kill: _patched(checkpoint_file, "_seal", kill, after=True),
    "renamed, not yet last.ckpt": lambda kill: _patched(checkpoints, "_name_last", kill),
    "last.ckpt, older ones still there": lambda kill: _patched(checkpoints, "_name_last", kill, after=True),
}
