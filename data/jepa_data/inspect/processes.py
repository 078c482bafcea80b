"""The processes that this one started, and the memory they take. Known on Linux; elsewhere there are none."""

import os
from pathlib import Path

PROC = Path("/proc")


def descendants() -> list[int]:
    """Numbers of the processes started by this one, by those, and so on."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if entry.name.isdigit():
            try:
                # After the name, which may hold anything, in parentheses: state, parent, …
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue  # it ended
            children.setdefault(parent, []).append(int(entry.name))
    processes, at = [os.getpid()], 0
    while at < len(processes):
        processes += children.get(processes[at], [])
        at += 1
    return processes[1:]


def memory_of(pid: int) -> float:
    """MiB that a process holds, without what it shares with others; 0.0 where that cannot be known."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_", "SwapPss"))) / 1024
    except (OSError, ValueError, IndexError):
        return 0.0
