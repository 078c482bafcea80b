"""`python -m tests.reliability [NAME...] [--count N] [--out FILE]`: tries that a run cannot be lost, and counts them.

Without names all experiments run, one after the other, as often as docs/runs/reliability.md says. The table is printed,
and with --out written as JSON. The exit code is 1 if something did not hold.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Before torch reads them. Forks of a process with threads would hang.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from tests.reliability.counts import Counts
from tests.reliability.experiments import EXPERIMENTS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(EXPERIMENTS)}; all of them without")
    parser.add_argument("--count", type=int, help="how often each is tried; without: as often as the docs say")
    parser.add_argument("--out", type=Path, help="JSON file for the counts")
    given = parser.parse_args()
    if unknown := set(given.names) - set(EXPERIMENTS):
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    table = {}
    for name in given.names or EXPERIMENTS:
        table[name] = measured(name, given.count)
        if given.out is not None:
            given.out.write_text(
                json.dumps({"python": platform.python_version(), "experiments": table}, indent=2) + "\n"
            )
    sys.exit(any(row["failures"] for row in table.values()))


def measured(name: str, count: int | None) -> dict[str, Any]:
    """The row of an experiment, printed."""
    experiment = EXPERIMENTS[name]
    began = time.monotonic()
    counts = Counts()
    try:
        with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
            counts = experiment.run(Path(folder), experiment.full if count is None else count)
    except Exception as error:  # noqa: BLE001  the other experiments still count
        counts.failures.append(f"the experiment itself: {error!r}")
    row = asdict(counts) | {"seconds": round(time.monotonic() - began, 1)}
    outcome = counts.skipped or ("FAILED" if counts.failures else "held")
    print(f"{name}: {outcome} ({row['seconds']} s) {counts.tries} {counts.figures}", flush=True)  # noqa: T201
    for failure in counts.failures:
        print(f"  {failure}", flush=True)  # noqa: T201
    return row


if __name__ == "__main__":
    main()
