"""The processes that this one started, and the memory they take."""

import psutil


def descendants() -> list[int]:
    """Numbers of the processes started by this one, by those, and so on."""
    return [process.pid for process in psutil.Process().children(recursive=True)]


def memory_of(pid: int) -> float:
    """MiB that a process holds, without what it shares with others; 0.0 where that cannot be known."""
    try:
        memory = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return 0.0
    return (memory.uss + getattr(memory, "swap", 0)) / 2**20
