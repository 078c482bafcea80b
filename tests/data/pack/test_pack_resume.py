"""A packing that is killed goes on, and a process that dies costs one video."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jepa_data.errors import DataError
from jepa_data.pack.pack import Packing, Report, open_corpus, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.process_pool import Alive, WorkerFailure, run_in_order
from jepa_data.shards.encode import encode_mp4

VIDEOS = 14
SCRIPT = """
import sys
from pathlib import Path
from jepa_data.pack.pack import Packing, open_corpus, pack
from jepa_data.pack.recipe import Recipe
if __name__ == "__main__":
    packing = Packing(Recipe(max_seconds=1.0, crf=5), test_share=0.3, shard_mib=1)
    pack(open_corpus(Path(sys.argv[1])), Path(sys.argv[2]), packing, processes=1)
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, so that a few seconds fill several shards of a megabyte; one file is broken."""
    root, rng = tmp_path_factory.mktemp("videos"), np.random.default_rng(0)
    for number in range(VIDEOS):
        images = rng.integers(0, 256, (30, 96, 96, 3), np.uint8)
        (root / f"{number}.mp4").write_bytes(encode_mp4(images, 15, pixel_format="yuv420p"))
    (root / "broken.mp4").write_bytes(b"no")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def packed(videos: Path, out: Path, shard_mib: int = 1, crf: int = 5) -> Report:
    packing = Packing(Recipe(max_seconds=1.0, crf=crf), test_share=0.3, shard_mib=shard_mib)
    return pack(open_corpus(videos), out, packing, processes=1)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happened for a minute"
        time.sleep(0.02)


def test_after_a_kill_the_same_command_goes_on_to_the_same_bytes(videos: Path, tmp_path: Path) -> None:
    whole = packed(videos, tmp_path / "whole")
    out, script = tmp_path / "out", tmp_path / "script.py"
    script.write_text(SCRIPT)
    counts = []
    for shards in (1, 2):  # killed twice
        with subprocess.Popen([sys.executable, str(script), str(videos), str(out)], start_new_session=True) as process:
            wait_for(lambda n=shards: process.poll() is not None or len(list(out.glob("*.index.jsonl"))) >= n)
            assert process.poll() is None, "it finished before it could be killed: the test needs more videos"
            process.send_signal(signal.SIGKILL)
        assert not (out / "manifest.json").exists()
        group = process.pid
        wait_for(lambda g=group: not _alive(g))  # its workers end by themselves
        counts.append(len(list(out.glob("*.index.jsonl"))))
    with pytest.raises(DataError, match="was being written with other settings"):
        packed(videos, out, crf=6)
    report = packed(videos, out)
    assert report.resumed > 0 and "were there before" in "\n".join(report.lines(out))
    assert contents(out) == contents(tmp_path / "whole")
    assert report.manifest == whole.manifest and report.rejected == whole.rejected and len(whole.rejected) == 1
    assert sum(split.episodes for split in whole.manifest.splits.values()) == 2 * VIDEOS
    with pytest.raises(DataError, match="is packed already"):
        packed(videos, out)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_number_of_processes_does_not_change_the_bytes(
    tmp_path: Path, numbered: Callable[..., NDArray[np.uint8]]
) -> None:
    (tmp_path / "a").mkdir()
    for number in range(5):
        (tmp_path / "a" / f"{number}.mp4").write_bytes(encode_mp4(numbered(20, 100 * number), 10))
    for processes in (1, 3):
        pack(open_corpus(tmp_path / "a"), tmp_path / str(processes), Packing(Recipe()), processes=processes)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_overwriting_begins_again(tmp_path: Path, numbered: Callable[..., NDArray[np.uint8]]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.mp4").write_bytes(encode_mp4(numbered(20), 10))
    (tmp_path / "a" / "2.mp4").write_bytes(b"no")
    corpus, out = open_corpus(tmp_path / "a"), tmp_path / "out"
    pack(corpus, out, Packing(Recipe(), test_share=0.0), processes=1)
    (tmp_path / "a" / "2.mp4").unlink()
    packing = Packing(Recipe(fps=5.0), test_share=0.0)
    report = pack(open_corpus(tmp_path / "a"), out, packing, processes=1, overwrite=True)
    assert report.manifest.splits["train"].frames == 10 and not (out / "rejected.jsonl").exists()


def obey(job: float, alive: Alive) -> float:
    """Negative: be killed by this signal. Others: sleep for so long."""
    if job < 0:
        os.kill(os.getpid(), int(-job))
    time.sleep(job)
    return job


def no_rest(result: float) -> tuple[float, ...]:
    return ()


def test_a_job_that_kills_its_process_is_given_up_and_the_others_are_done() -> None:
    jobs, killed = [0.2, 0.0, -9.0, 0.1, 0.0, 0.0, -6.0, 0.0], {-9.0: "SIGKILL", -6.0: "SIGABRT"}
    expected = [
        (job, WorkerFailure("crashed", f"its decoder ended the process ({killed[job]})") if job < 0 else job)
        for job in jobs
    ]
    assert list(run_in_order(obey, jobs, no_rest, processes=2)) == expected


def test_further_jobs_come_before_those_that_wait() -> None:
    def rest(result: float) -> list[float]:
        return [0.101, 0.102] if result == 0.1 else []

    found = [job for job, _ in run_in_order(obey, [0.0, 0.1, 0.01, 0.02, 0.03, 0.04], rest, 2)]
    assert found == [0.0, 0.1, 0.101, 0.102, 0.01, 0.02, 0.03, 0.04]


def test_giving_up_does_not_wait_for_the_jobs_at_work() -> None:
    began = time.monotonic()
    with suppress(KeyboardInterrupt), closing(run_in_order(obey, [0.0, 60.0, 60.0], no_rest, 2)) as results:
        next(results)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 30


def test_at_most_two_jobs_a_process_are_under_way() -> None:
    taken = 0

    def jobs() -> Iterator[float]:
        nonlocal taken
        while taken < 40:
            taken += 1
            yield taken / 1000

    for number, (_, result) in enumerate(run_in_order(obey, jobs(), no_rest, 2), start=1):
        assert result == number / 1000 and taken <= number + 3
    assert taken == 40
