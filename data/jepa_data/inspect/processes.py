"""The processes that this one started, and the memory they take. Known on Linux; elsewhere there are none."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def statuses() -> Iterator[tuple[int, list[str]]]:
    """The number of each process, and what the kernel says of it: state, parent, …"""
    for entry in PROC.glob("[0-9]*"):
        with suppress(OSError):  # it ended
            # Before comes its name, in parentheses, which may hold anything.
            yield int(entry.name), (entry / "stat").read_text().rpartition(")")[2].split()


def descendants() -> list[int]:
    """Numbers of the processes started by this one, by those, and so on."""
    children: dict[int, list[int]] = {}
    for process, status in statuses():
        children.setdefault(int(status[1]), []).append(process)
    processes = [os.getpid()]
    for process in processes:  # which grows meanwhile
        processes += children.get(process, [])
    return processes[1:]


def memory_of(pid: int) -> float:
    """MiB that a process holds, without what it shares with others; 0.0 where that cannot be known."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_", "SwapPss"))) / 1024
    except (OSError, ValueError, IndexError):
        return 0.0
