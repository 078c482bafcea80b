"""Workers that die or hang: a clear error or a report, never a shorter epoch; and nothing is left running."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.shards.index import ShardSet
from jepa_data.stream.loader import make_loader
from jepa_data.stream.stuck import StuckGuard
from tests.data.stuck_reader import stuck_reader

needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_shards: Callable[..., Path]) -> Path:
    return write_shards(tmp_path_factory.mktemp("workers") / "s", [12, 20, 15, 30, 11, 9, 25, 14, 18, 10])


def config(folder: Path, **settings: Any) -> StreamConfig:
    return StreamConfig.model_validate({"shards": str(folder), "batch_size": 4, "clip_frames": 8} | settings)


def children() -> set[int]:
    """Process numbers of the workers that are alive."""
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_worker_that_is_killed_stops_the_epoch_with_an_error(folder: Path, after: int) -> None:
    """While batches of it are on their way, and while they are not."""
    loader = make_loader(config(folder, workers=2), "train", seed=0, total_batches=500)
    before = children()
    stream = iter(loader)
    taken = list(islice(stream, 1 + after))
    os.kill(min(children() - before), signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(
        DataError, match=r"a worker of the data stream ended in its work \(.*It may have run out of memory"
    ):
        taken.extend(stream)
    assert time.monotonic() - began < 120 and len(taken) < 500  # the loader's own timeout is far later
    assert loader.state_dict()["batch"] == len(taken), "a new loader goes on exactly here"


LOADS_UNTIL_KILLED = """
import sys, time, psutil
from jepa_data.config import StreamConfig
from jepa_data.stream.loader import make_loader
if __name__ == "__main__":
    data = StreamConfig(shards=sys.argv[1], batch_size=2, clip_frames=4, workers=2)
    stream = iter(make_loader(data, "train", seed=0, total_batches=10**6))
    next(stream)
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_training_process_that_is_killed_leaves_no_worker(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "load.py"
    script.write_text(LOADS_UNTIL_KILLED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, script, folder], stdout=subprocess.PIPE, text=True, env=environment
    ) as loads:
        assert loads.stdout is not None
        started = [psutil.Process(int(pid)) for pid in loads.stdout.readline().split()]
        loads.kill()
    assert len(started) >= 3, "two workers and their fork server"
    _, left = psutil.wait_procs(started, timeout=60)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]


def test_an_error_of_the_data_in_a_worker_is_one_line_and_leaves_no_worker(folder: Path, tmp_path: Path) -> None:
    before = children()
    settings = config(folder, workers=2, start_seconds=3.0)
    loader = make_loader(settings, "train", seed=0, shuffle=False)
    with pytest.raises(DataError, match=r"starts at 3 s ends after the video.*Lower data.start_seconds") as caught:
        list(loader)
    assert "Traceback" not in str(caught.value) and "\n" not in str(caught.value)
    assert children() == before, "although the error is still held"


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_pass_that_is_broken_off_leaves_no_worker_at_once(folder: Path, kind: str) -> None:
    import threading

    before, threads = children(), threading.active_count()
    stream = iter(make_loader(config(folder, workers=2, worker_kind=kind), "train", seed=0, total_batches=500))
    next(stream)
    began = time.monotonic()
    stream.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert children() == before
    allowed = threads + (kind == "process")  # torch keeps one for its own use
    while threading.active_count() > allowed and time.monotonic() - began < 60:
        time.sleep(0.01)  # a queue that is closed ends its thread in its own time
    assert threading.active_count() <= allowed


def test_an_error_that_nobody_foresaw_is_not_swallowed(folder: Path, tmp_path: Path) -> None:
    """A file where the decoder would be an empty one is not a bad sample: the program is wrong, not the data."""
    loader = make_loader(config(folder, workers=2), "train", seed=0)
    object.__setattr__(loader.plan.sources[0], "run", 0)  # division by zero in the plan
    with pytest.raises(ZeroDivisionError):
        list(loader)


RUN = """
import sys, time, warnings
from jepa_data.config import StreamConfig
from jepa_data.shards.read import SampleReader
from jepa_data.stream.clips import ClipReader
from jepa_data.stream.loader import make_loader

{before}

if __name__ == "__main__":
    warnings.simplefilter("always")
    folder, workers, kind, stall = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    config = StreamConfig(
        shards=folder, batch_size=4, clip_frames=8, workers=workers, worker_kind=kind, stall_seconds=stall
    )
    loader = make_loader(config, "train", seed=0, total_batches=6)
    batches = list(loader)
    print(loader.stats.stalls, len(batches), loader.stats.clips)
"""
# Workers run what stands above the guard as well.
SLEEPY = """
read, opened = SampleReader._read, []

def a_decoder_that_hangs(*args):
    opened.append(1)
    if len(opened) == 3:
        time.sleep(3)
    return read(*args)

SampleReader._read = a_decoder_that_hangs
"""
LATE = """
if __name__ == "__mp_main__":
    time.sleep(2)
"""


def run(script: Path, *arguments: object) -> tuple[list[int], str]:
    """What the script printed, and its stderr."""
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()], done.stderr


@needs_signals
@pytest.mark.parametrize(
    ("workers", "kind"),
    [(2, "process"), *(pytest.param(*way, marks=pytest.mark.slow) for way in ((0, "process"), (2, "thread")))],
)
def test_a_decoder_that_hangs_makes_the_watchdog_show_all_stacks_and_the_run_goes_on(
    workers: int, kind: str, folder: Path, tmp_path: Path
) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN.replace("{before}", SLEEPY))
    (stalls, batches, clips), told = run(script, folder, workers, kind, 1.0)
    assert (batches, clips) == (6, 24) and stalls >= 1
    assert "no batch has arrived for" in told and "data.stall_seconds" in told
    assert "a_decoder_that_hangs" in told, "where it hangs, in the worker's own stack"
    assert "watchdog.py" in told, "and what the main process does"


@needs_signals
def test_a_worker_that_is_still_starting_is_not_ended_by_the_watchdog(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN.replace("{before}", LATE))
    (stalls, batches, clips), told = run(script, folder, 2, "process", 0.2)
    assert (batches, clips) == (6, 24) and stalls >= 1 and "no batch has arrived" in told


@pytest.mark.parametrize(("workers", "kind"), [(0, "process"), (2, "process"), (3, "thread")])
def test_the_budget_stops_any_kind_of_workers_at_the_same_batch_with_the_list(
    workers: int, kind: str, tmp_path: Path, write_shards: Callable[..., Path]
) -> None:
    folder = write_shards(tmp_path / "s", [12] * 20)
    samples = ShardSet.open(folder).samples
    for number in (3, 7, 11, 15):
        at, size = samples[number].members["mp4"]
        with (folder / samples[number].shard).open("r+b") as file:
            file.seek(at + size // 2)
            file.write(bytes(50))
    log = tmp_path / "quarantine.jsonl"
    settings = config(folder, workers=workers, worker_kind=kind, max_bad_fraction=0.1, quarantine=str(log))
    loader = make_loader(settings, "train", seed=0)
    with pytest.raises(
        DataError, match=r"3 of 20 samples of 'train' cannot be read: (\S+ ep-\d+ \(damaged\)(, )?){3}\."
    ):
        list(loader)
    assert loader.stats.bad == 3 == len(log.read_text().splitlines())
    plain = make_loader(config(folder, max_bad_fraction=0.1), "train", seed=0)
    with pytest.raises(DataError, match="3 of 20"):
        list(plain)
    assert plain.state_dict() == loader.state_dict() and list(plain.bad) == list(loader.bad)


FEW = {"batch_size": 2, "decode_seconds": 1.0, "max_bad_fraction": 0.5}


def test_a_worker_that_is_stuck_in_a_decoder_is_ended_and_the_sample_left_out_by_name(folder: Path) -> None:
    whole = [batch.keys for batch in make_loader(config(folder, **FEW), "train", seed=0, total_batches=10)]
    key, before = whole[3][1], children()
    loader = make_loader(config(folder, workers=2, **FEW), "train", seed=0, total_batches=10)
    loader._reader = stuck_reader(key, *loader._reader.__reduce__()[1])
    keys = [batch.keys for batch in loader]
    assert len(keys) == 10 and set(loader.bad) == {key} and loader.bad[key].kind == "timeout"
    for expected, found in zip(whole, keys, strict=True):
        assert key not in found
        assert all(a == b for a, b in zip(expected, found, strict=True) if a != key), "the others are where they were"
    assert children() == before


SLOW = FEW | {"decode_seconds": 5.0}  # no decoder is stuck here, not even on a busy machine


def test_a_worker_that_somebody_stopped_is_replaced_and_no_sample_is_lost(folder: Path) -> None:
    whole = [batch.keys for batch in make_loader(config(folder, **SLOW), "train", seed=0, total_batches=30)]
    before = children()
    loader = make_loader(config(folder, workers=2, **SLOW), "train", seed=0, total_batches=30)
    stream = iter(loader)
    keys = [batch.keys for batch in islice(stream, 3)]
    os.kill(min(children() - before), signal.SIGSTOP)
    keys += [batch.keys for batch in stream]
    assert keys == whole and not loader.bad
    assert children() == before


@needs_signals
@pytest.mark.parametrize(("sent", "killed"), [(signal.SIGKILL, False), (signal.SIGSTOP, True)])
def test_a_worker_that_was_killed_or_stopped_in_its_work_blames_no_sample(sent: int, killed: bool) -> None:
    """Whoever waits for batches may notice it much later: the guard looks again and again until then."""
    marks = np.array([[1, 4, 1]])
    worker = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(1000,))
    worker.start()
    assert worker.pid is not None
    os.kill(worker.pid, sent)
    with StuckGuard(marks, 0.2, lambda: {0: worker}, str) as guard:
        worker.join(None if killed else 1.0)
        time.sleep(1.0)
    assert guard.killed is killed and not guard.stuck
    worker.join()


def test_where_the_training_process_decodes_a_stuck_decoder_ends_it_with_the_name_of_the_sample(folder: Path) -> None:
    script = (
        "import sys, time\nfrom jepa_data.config import StreamConfig\nfrom jepa_data.shards.read import SampleReader\n"
        "from jepa_data.stream.loader import make_loader\nSampleReader.clips = lambda *_: time.sleep(1000)\n"
        "config = StreamConfig(shards=sys.argv[1], batch_size=2, clip_frames=8, decode_seconds=0.5)\n"
        "list(make_loader(config, 'train', seed=0, total_batches=2))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", script, folder],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1
    assert str(folder) in ended.stderr and "its decoder has not returned for 5.5 s" in ended.stderr
