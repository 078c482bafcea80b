"""The experiments, in the order in which they run."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.reliability import damage, disk, flips, kills, ranks, signals, soak, workers
from tests.reliability.counts import Counts


class Experiment(NamedTuple):
    """A function of a folder and a count; how often it is tried for the table of the docs, and in the slow tests."""

    run: Callable[[Path, int], Counts]
    full: int
    short: int


EXPERIMENTS = {
    "kills": Experiment(kills.run, 50, 10),
    "kills-elsewhere": Experiment(kills.run_elsewhere, 5, 5),
    "signals": Experiment(signals.run, 20, 4),
    "two-at-once": Experiment(signals.two_at_once, 10, 2),
    "damage": Experiment(damage.run, damage.SAMPLES, 200),
    "cuts": Experiment(damage.cuts, 100, 20),
    "decoders-stuck": Experiment(workers.stuck, 3, 1),
    "workers-killed": Experiment(workers.killed, 10, 2),
    "disk": Experiment(disk.run, 20, 4),
    "disk-commands": Experiment(disk.commands, 3, 1),
    "flips": Experiment(flips.run, 100, 10),
    "ranks": Experiment(ranks.run, 2, 1),
    "soak": Experiment(soak.run, 60, 1),
}
