"""Measuring on Ray Data, on one machine or many. The shards must be readable at the same address from all of them.

A cluster that RAY_ADDRESS names, or that this program is connected to, is used; otherwise one is started here for the
time it takes. Row numbers go out; each task opens the folder itself, so no video passes through this program. A task
measures in a process of its own, as here: a decoder that crashes or hangs costs one sample. What Ray itself loses, with
a machine that goes, it does again.
"""

import logging
import os
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from jepa_data.config import Access
from jepa_data.curate.engine_local import measure_local
from jepa_data.curate.measure import Measured, Measurer
from jepa_data.errors import DataError
from jepa_data.shards.index import ShardSet
from jepa_data.shards.store import open_store

TASK = 256  # samples, at most: each task starts a process, which takes a second
INSTALL = "pip install 'openjepa[ray]'"


def measure_ray(
    shards: ShardSet,
    measurer: Measurer,
    processes: int,
    timeout_seconds: float,
    progress: Callable[[int], None],
) -> dict[int, Measured]:
    """Measurements by row; see `measure_local`.

    Args:
        processes: tasks at a time; 0: as many as the cluster has cores.

    Raises:
        DataError: Ray is not installed.
    """
    # Ray reports its use over the network unless it is turned off.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DataError(f"--engine ray: Ray Data cannot be imported ({error}). Install it: {INSTALL}") from error
    started = not ray.is_initialized()
    if started:
        of_own = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": processes or None, "include_dashboard": False}
        ray.init(**of_own, configure_logging=False, log_to_driver=False)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = len(shards.samples)
        access = getattr(shards.store, "access", None)
        at_once = processes or int(ray.cluster_resources().get("CPU", 1))
        tasks = max(1, min(rows, max(at_once, -(-rows // TASK))))
        # Functions, not actors: an actor would hold the core that reading needs; on one core nothing would ever begin.
        data = ray.data.range(rows, override_num_blocks=tasks).map_batches(
            partial(measure_rows, url=shards.url, access=access, measurer=measurer, timeout_seconds=timeout_seconds),
            batch_size=None,
            batch_format="numpy",
            num_cpus=1,
            concurrency=processes or None,
        )
        measurements: dict[int, Measured] = {}
        for batch in data.iter_batches(batch_size=None, batch_format="numpy"):
            for row, record in zip(batch["row"].tolist(), batch["measured"].tolist(), strict=True):
                measurements[row] = pickle.loads(record)
            progress(len(measurements))
        return measurements
    finally:
        if started:
            ray.shutdown()


def measure_rows(
    batch: Any, url: str, access: Access | None, measurer: Measurer, timeout_seconds: float
) -> dict[str, Any]:
    """What a task does: opens the shards and measures the rows that are named in the column `id`."""
    rows = batch["id"].tolist()
    shards = ShardSet.open(open_store(url, access))
    measured = measure_local(shards, rows, measurer, 1, timeout_seconds, lambda done: None)
    return {
        "row": np.array(rows, np.int64),
        "measured": np.array([pickle.dumps(measured[row]) for row in rows], object),
    }
