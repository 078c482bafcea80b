"""What this machine has to train with: cores, memory, a GPU, bf16."""

from dataclasses import dataclass
from pathlib import Path

import psutil

from jepa_data.process_pool import cores

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Hardware:
    """What a training can use.

    Attributes:
        cores: processors, as far as a container's limit allows them.
        memory: bytes that are free, or that a container may still take.
        gpu, gpu_memory: name and bytes of the first GPU; None and 0 without one.
        bf16: whether the device that trains multiplies bf16 natively.
    """

    cores: int
    memory: int
    gpu: str | None
    gpu_memory: int
    bf16: bool

    @property
    def training_memory(self) -> int:
        """Bytes of the device that trains."""
        return self.gpu_memory or self.memory

    def line(self) -> str:
        device = f"{self.gpu} ({self.gpu_memory / 2**30:.0f} GiB)" if self.gpu else "no GPU"
        bf16 = "bf16" if self.bf16 else "no native bf16"
        return f"{self.cores} cores, {self.memory / 2**30:.1f} GiB of free memory, {device}, {bf16}"


def look() -> Hardware:
    """Imports torch, to ask for the GPU."""
    import torch

    from jepa_data.devices import multiplies_bf16

    usable = cores()
    if quota := _numbers(CGROUP / "cpu.max"):  # and the period it is of
        usable = max(1, min(usable, round(quota[0] / quota[1])))
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Hardware(usable, _memory(), properties.name, properties.total_memory, multiplies_bf16("cuda"))
    return Hardware(usable, _memory(), None, 0, multiplies_bf16("cpu"))


def _memory() -> int:
    """Bytes that can still be taken, of the machine and of the container, whose limit psutil does not know."""
    free = psutil.virtual_memory().available
    limit, used = _first_number(CGROUP / "memory.max"), _first_number(CGROUP / "memory.current")
    return free if limit is None else max(0, min(free, limit - (used or 0)))


def _first_number(file: Path) -> int | None:
    numbers = _numbers(file)
    return numbers[0] if numbers else None


def _numbers(file: Path) -> list[int]:
    """The numbers in a file of the kernel; none if it is not there, or says `max`."""
    try:
        return [int(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []
