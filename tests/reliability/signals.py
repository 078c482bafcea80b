"""SIGTERM at random moments of a training, and of its start; and two commands on one folder."""

import random
import shutil
import signal
import time
from pathlib import Path

from jepa.training.run_state.checkpoints import FOLDER, newest_whole
from tests.reliability.counts import Counts
from tests.reliability.processes import Child, Ended, forked, jepa
from tests.reliability.tiny import corpus, describe, differences, succeed, train, write_config

STEPS = 60
STOPPED = 143


def run(folder: Path, count: int) -> Counts:
    """SIGTERM so often, each to a run of its own that is then resumed; a quarter of them while it starts."""
    counts = Counts()
    shards = corpus(folder)
    whole, stopped = folder / "whole", folder / "stopped"
    succeed(forked(lambda: train(describe(whole, shards, trainer__steps=STEPS))))
    draw = random.Random(0)
    for number in range(count):
        shutil.rmtree(stopped, ignore_errors=True)
        config = describe(stopped, shards, trainer__steps=STEPS)
        child = Child(lambda config=config: train(config))
        if number % 4 == 3:
            time.sleep(draw.random())
            _while_it_starts(child, counts)
        else:
            _while_it_trains(child, draw, stopped, counts)
        resume = (stopped / "config.yaml").is_file()
        ended = forked(lambda config=config, resume=resume: train(config, resume=resume))
        wrong = [f"exit code {ended.code}: {ended.last_line}"] if ended.code else differences(whole, stopped)
        counts.check("the run goes on as if never stopped", not wrong, f"try {number}: {wrong}")
    return counts


def _while_it_trains(child: Child, draw: random.Random, run: Path, counts: Counts) -> None:
    step = draw.randrange(1, STEPS - 5)
    while (line := child.line()) is not None and int(line.split()[1]) < step:
        pass
    time.sleep(draw.random() * 0.05)
    ended = _stop(child, counts)
    counts.check("SIGTERM in training: exit code 143", ended.code == STOPPED, f"{ended.code}: {ended.last_line}")
    found = forked(lambda: _check_saved(run))
    counts.check("SIGTERM in training: its step is saved", not found.code, found.last_line)


def _while_it_starts(child: Child, counts: Counts) -> None:
    """Before the first step nobody is to be told of, so the signal may end the process itself."""
    ended = _stop(child, counts)
    fits = ended.code in (STOPPED, -signal.SIGTERM) and not ended.has_traceback
    counts.check("SIGTERM at the start: it ends", fits, f"{ended.code}: {ended.errors[-500:]}")


def _stop(child: Child, counts: Counts) -> Ended:
    began = time.monotonic()
    child.send(signal.SIGTERM)
    ended = child.wait()
    counts.most("longest wait, seconds", time.monotonic() - began)
    return ended


def _check_saved(run: Path) -> None:
    path, checkpoint, why = newest_whole(run / FOLDER)
    if why or path.name != "last.ckpt" or not checkpoint["global_step"]:
        raise RuntimeError(why or path.name)


def two_at_once(folder: Path, count: int) -> Counts:
    """Two commands begin on one folder so often: one trains, the other is refused, and nothing of it is left."""
    counts = Counts()
    shards = corpus(folder)
    draw = random.Random(0)
    for number in range(count):
        out = folder / f"run-{number}"
        config = write_config(folder / f"{number}.yaml", describe(out, shards))
        first = Child(lambda config=config: jepa("pretrain", config))
        time.sleep(draw.random() * 0.3)
        second = Child(lambda config=config: jepa("pretrain", config))
        ended = sorted((first.wait(), second.wait()), key=lambda one: one.code or 0)
        trained, refused = ended
        fits = trained.code == 0 and refused.is_refused
        counts.check("one of two processes is refused", fits, f"{[one.code for one in ended]}: {refused.last_line}")
        counts.check("the other one trains to its end", (out / "model" / "model.json").is_file(), str(number))
    return counts
