"""A training that goes on and on: the memory of its process and its workers stays flat.

Resident memory is read every few seconds. A line is fitted to the second half of the time: a slope of less than
`SLOPE` MiB an hour is flat, and so is a rise over that half of less than `RISE` MiB: short soaks see no less than that.
"""

import time
from pathlib import Path

import numpy as np
import psutil

from tests.reliability.counts import Counts
from tests.reliability.processes import Child
from tests.reliability.tiny import corpus, describe, train

SLOPE = 20.0
RISE = 8.0
EVERY_SECONDS = 5.0


def run(folder: Path, count: int) -> Counts:
    """For `count` minutes."""
    counts = Counts()
    config = describe(folder / "run", corpus(folder), data__workers=1, data__cache_mib=16)
    config["trainer"] |= {"steps": 10**9, "log_every": 50, "monitor_every": 100, "checkpoint_every": 200}
    config["trainer"] |= {"max_minutes": float(count)}
    child = Child(lambda: train(config))
    child.line()
    processes: dict[int, list[tuple[float, float]]] = {}
    began = time.monotonic()
    step = "step 0"
    while (line := child.line()) is not None:
        step = line
        now = time.monotonic() - began
        if now > EVERY_SECONDS * (1 + max(map(len, processes.values()), default=0)):
            _measure(child.pid, now, processes)
    ended = child.wait()
    counts.check("it ends after its time with exit code 143", ended.code == 143, f"{ended.code}: {ended.last_line}")
    counts.figures |= {"minutes": round((time.monotonic() - began) / 60, 1), "steps": int(step.split()[1])}
    for number, measured in enumerate(processes.values()):
        if len(measured) < 10:
            continue
        second = np.array(measured[len(measured) // 2 :])
        slope = float(np.polyfit(second[:, 0], second[:, 1], 1)[0])
        rise = slope * float(np.ptp(second[:, 0]))
        counts.figures[f"process {number}: MiB, MiB an hour"] = (round(float(second[-1, 1]), 1), round(slope * 3600, 1))
        flat = slope * 3600 < SLOPE or rise < RISE
        counts.check("memory is flat", flat, f"process {number}: {slope * 3600:.1f} MiB an hour, {rise:.1f} in all")
    return counts


def _measure(pid: int, now: float, processes: dict[int, list[tuple[float, float]]]) -> None:
    """Resident MiB of a process and all below it."""
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            processes.setdefault(process.pid, []).append((now, process.memory_info().rss / 2**20))
        except psutil.NoSuchProcess:
            continue
