"""Where samples are measured: in processes of this machine, or on Ray. Both give the same numbers."""

from collections.abc import Callable
from typing import Literal

from jepa_data.curate.in_pool import in_pool
from jepa_data.curate.measure import Measured, Measurer
from jepa_data.shards.index import ShardSet

EngineName = Literal["pool", "ray"]


def measure(
    shards: ShardSet,
    measurer: Measurer,
    engine: EngineName,
    processes: int,
    timeout_seconds: float,
    progress: Callable[[int], None],
) -> list[Measured]:
    """Every sample of a folder, in its order; what is damaged, crashes or hangs is in `problem`.

    Args:
        processes, timeout_seconds: see `in_pool` and `on_ray`.
        progress: is told how many samples are done.

    Raises:
        DataError: Ray is not installed.
    """
    rows = range(len(shards.samples))
    if engine == "pool":
        found = in_pool(shards, rows, measurer, processes, timeout_seconds, progress)
    else:
        from jepa_data.curate.on_ray import on_ray

        found = on_ray(shards, measurer, processes, timeout_seconds, progress)
    return [found[row] for row in rows]
