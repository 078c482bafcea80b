"""Worker processes of the stream that are killed, and decoders that never return."""

import multiprocessing
import os
import random
import signal
from itertools import islice
from pathlib import Path
from typing import Any

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.stream.loader import make_loader
from tests.data.stuck_reader import stuck_reader
from tests.reliability.counts import Counts
from tests.reliability.processes import Child, tell
from tests.reliability.tiny import numbered_shards

BATCHES = 30


def killed(folder: Path, count: int) -> Counts:
    """A worker is killed so often: a clear error at that batch, and a new loader delivers exactly the rest."""
    return _in_one_process(folder, count, _kill_worker)


def stuck(folder: Path, count: int) -> Counts:
    """So many decoders that never return: each is ended, its sample is named, and all others stay in place."""
    return _in_one_process(folder, count, _stick)


def _in_one_process(folder: Path, count: int, work: Any) -> Counts:
    """All tries in one process, whose workers start at once after the first."""
    counts = Counts()
    shards = numbered_shards(folder / "shards", 40)
    child = Child(lambda: _all(work, shards, count))
    while (line := child.line()) is not None:
        what, _, problem = line.partition("|")
        counts.check(what, not problem, problem)
    ended = child.wait()
    counts.check("the process ends well", ended.code == 0, ended.errors[-500:])
    return counts


def _all(work: Any, shards: Path, count: int) -> None:
    for number in range(count):
        work(shards, random.Random(number))
    left = multiprocessing.active_children()
    tell(f"no worker is left|{left or ''}")


def _loader(shards: Path, **settings: Any) -> Any:
    config = {"shards": str(shards), "batch_size": 4, "clip_frames": 8} | settings
    return make_loader(StreamConfig.model_validate(config), "train", seed=0, total_batches=BATCHES)


def _kill_worker(shards: Path, draw: random.Random) -> None:
    whole = [batch.keys for batch in _loader(shards)]
    loader = _loader(shards, workers=2)
    stream = iter(loader)
    keys = [batch.keys for batch in islice(stream, draw.randrange(1, 10))]
    pids = [child.pid for child in multiprocessing.active_children() if child.pid]
    os.kill(draw.choice(pids), signal.SIGKILL)
    problem = "the epoch went on as if nothing had happened"
    try:
        for batch in stream:
            keys.append(batch.keys)
        if keys == whole:
            problem = ""  # all was on its way already, or another worker took its place
    except DataError as error:
        problem = "" if "a worker of the data stream ended in its work" in str(error) else str(error)
    tell(f"a killed worker is an error, or replaced|{problem}")
    again = _loader(shards, workers=2)
    again.load_state_dict(loader.state_dict())
    keys += [batch.keys for batch in again] if len(keys) < len(whole) else []
    tell(f"no batch is lost|{'' if keys == whole else 'batches differ'}")


def _stick(shards: Path, draw: random.Random) -> None:
    settings = {"batch_size": 2, "decode_seconds": 1.0, "max_bad_fraction": 0.5}
    whole = [batch.keys for batch in _loader(shards, **settings)]
    key = draw.choice(whole[draw.randrange(2, 10)])
    loader = _loader(shards, workers=2, **settings)
    loader._reader = stuck_reader(key, *loader._reader.__reduce__()[1])
    keys = [batch.keys for batch in loader]
    named = set(loader.bad) == {key} and loader.bad[key].kind == "timeout"
    tell(f"a stuck decoder is ended and its sample named|{'' if named else list(loader.bad)}")
    pairs = [pair for each in zip(whole, keys, strict=True) for pair in zip(*each, strict=True)]
    same = len(keys) == BATCHES and all(a == b for a, b in pairs if a != key)
    tell(f"all others stay in place|{'' if same else 'they moved'}")
