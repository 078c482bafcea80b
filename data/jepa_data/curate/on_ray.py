"""Measuring on Ray Data, on one machine or many. The shards must be readable at the same address from all of them.

A cluster that RAY_ADDRESS names, or that this program is connected to, is used; otherwise one is started here for the
time it takes. Row numbers go out; each worker opens the folder itself, so no video passes through this program.
"""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from jepa_data.config import Access
from jepa_data.curate.measure import Measured, Measurer
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.index import ShardSet

TASK = 32  # samples: what is measured again if their worker dies
MAX_TASKS = 20_000
INSTALL = "pip install 'openjepa[ray]'"


def on_ray(
    shards: ShardSet, measurer: Measurer, processes: int, progress: Callable[[int], None]
) -> dict[int, Measured]:
    """Measurements by row. Those of a worker that died are missing.

    Args:
        processes: at most so many at a time; 0: as many as the cluster has cores.

    Raises:
        DataError: Ray is not installed.
    """
    # Ray reports its use over the network unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DataError(f"--engine ray: Ray Data cannot be imported ({error}). Install it: {INSTALL}") from error
    started = not ray.is_initialized()
    if started:
        ray.init(
            num_cpus=None if os.environ.get("RAY_ADDRESS") else processes or None,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
        )
    try:
        return _run(shards, measurer, processes, progress)
    finally:
        if started:
            ray.shutdown()


def _run(shards: ShardSet, measurer: Measurer, processes: int, progress: Callable[[int], None]) -> dict[int, Measured]:
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # one that kills its worker shall not take the rest with it
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows, access = len(shards.samples), getattr(shards.store, "access", None)
    # Functions, not actors: an actor would hold the core that reading needs, and on one core nothing would ever begin.
    data = ray.data.range(rows, override_num_blocks=max(1, min(MAX_TASKS, -(-rows // TASK)))).map_batches(
        partial(measure_rows, url=shards.url, access=access, measurer=measurer),
        batch_size=None,
        batch_format="numpy",
        num_cpus=1,
        concurrency=processes or None,
    )
    found: dict[int, Measured] = {}
    for batch in data.iter_batches(batch_size=None, batch_format="numpy"):
        for row, text in zip(batch["row"].tolist(), batch["measured"].tolist(), strict=True):
            found[row] = _from_json(text)
        progress(len(found))
    return found


def measure_rows(batch: Any, url: str, access: Access | None, measurer: Measurer) -> dict[str, Any]:
    """What a task does: opens the shards and measures the rows that are named in the column `id`."""
    samples, rows = ShardSet.open(url, access).samples, batch["id"].tolist()
    texts = []
    for row in rows:
        try:
            measured = measurer(samples[row])
        except DecodeError as error:  # its line in the index is damaged
            measured = Measured(problem=(error.kind, error.detail))
        texts.append(_to_json(measured))
    return {"row": np.array(rows, np.int64), "measured": np.array(texts, object)}


def _to_json(measured: Measured) -> str:
    """Numbers are written such that the same ones are read."""
    record = asdict(measured)
    return json.dumps(record | {"hashes": None if measured.hashes is None else measured.hashes.tolist()})


def _from_json(text: str) -> Measured:
    record = json.loads(text)
    for name in ("problem", "off_clock", "widths"):
        record[name] = None if record[name] is None else tuple(record[name])
    hashes = record.pop("hashes")
    return Measured(**record, hashes=None if hashes is None else np.array(hashes, np.uint64))
