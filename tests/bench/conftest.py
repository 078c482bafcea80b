"""Ratios against a named baseline in the same process, A B A B, so that a machine whose speed drifts does no harm."""

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

RESULTS = Path(__file__).parent / "results"
Compare = Callable[..., float]
Work = Callable[[], object]


@pytest.fixture
def compare() -> Compare:
    """compare(name, ours, baseline, what): how many times as fast ours is; also written to results/NAME.json.

    A work that knows its own time says it in an attribute `seconds` after each call; else it is the wall's. `count` is
    the number of clips that a call works through, where the times are to be told per clip.
    """

    def run(
        name: str,
        ours: Work,
        baseline: Work,
        what: str,
        rounds: int = 7,
        count: int = 1,
    ) -> float:
        times: dict[str, list[float]] = {"ours": [], "baseline": []}
        for number in range(rounds + 1):
            for label, work in (("ours", ours), ("baseline", baseline)):
                began = time.perf_counter()
                work()
                if number:  # the first round warms up
                    times[label].append(getattr(work, "seconds", time.perf_counter() - began) / count)
        ratios = sorted(b / a for a, b in zip(times["ours"], times["baseline"], strict=True))
        record = {
            "what": what,
            "times_as_fast": round(statistics.median(ratios), 2),
            "lowest": round(ratios[0], 2),
            "highest": round(ratios[-1], 2),
            "seconds": {label: round(statistics.median(values), 5) for label, values in times.items()},
            "per": "call" if count == 1 else "clip",
            "rounds": rounds,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "processor": platform.machine(),
        }
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
        print(f"\n{name}: {record['times_as_fast']} times as fast: {what}")  # noqa: T201 - what `make bench` is for
        return record["times_as_fast"]

    return run
