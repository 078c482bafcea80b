"""Where samples are measured: in processes of this machine, or on Ray. Both give the same numbers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from jepa_data.curate.measure import Measured, Measurer
from jepa_data.errors import DataError, DecodeError
from jepa_data.looking.isolated import Lost, run_isolated
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Sample

EngineName = Literal["pool", "ray"]
Job = tuple[int, Sample]  # row, sample
Progress = Callable[[int], None]  # is told how many samples are done


def measure(
    shards: ShardSet, measurer: Measurer, engine: EngineName, processes: int, timeout_seconds: float, progress: Progress
) -> list[Measured]:
    """Every sample of a folder, in its order; what is damaged, crashes or hangs is in `problem`.

    Args:
        processes: on this machine; 0: in this one, where a decoder's crash ends the program. With Ray: of its cluster.
        timeout_seconds: a sample that takes longer is given up.

    Raises:
        DataError: Ray is not installed, or its workers cannot do the work.
    """
    rows = range(len(shards.samples))
    if engine == "pool":
        found = _in_pool(shards, rows, measurer, processes, timeout_seconds, progress)
    else:
        from jepa_data.curate.on_ray import on_ray

        found = on_ray(shards, measurer, processes, progress)
        missing = [row for row in rows if row not in found]
        if missing and len(missing) == len(rows):
            raise DataError("no worker of Ray could measure anything. Is openjepa installed on all its machines?")
        # Their worker died, with what it was at; here each sample is by itself, and the culprit is named.
        found |= _in_pool(shards, missing, measurer, max(1, processes), timeout_seconds, progress)
    return [found[row] for row in rows]


def _in_pool(
    shards: ShardSet,
    rows: Sequence[int],
    measurer: Measurer,
    processes: int,
    timeout_seconds: float,
    progress: Progress,
) -> dict[int, Measured]:
    found: dict[int, Measured] = {}
    done = len(shards.samples) - len(rows)

    def jobs() -> Iterator[Job]:
        for row in rows:
            try:
                yield row, shards.samples[row]
            except DecodeError as error:
                found[row] = Measured(problem=(error.kind, error.detail))

    for row, measured in _results(measurer, jobs(), processes, timeout_seconds):
        found[row] = measured
        progress(done + len(found))
    return found


def _results(
    measurer: Measurer, jobs: Iterable[Job], processes: int, timeout_seconds: float
) -> Iterator[tuple[int, Measured]]:
    if not processes:
        yield from ((row, measurer(sample)) for row, sample in jobs)
        return
    for (row, _), result in run_isolated(Isolated(measurer), jobs, processes, timeout_seconds):
        yield row, Measured(problem=(result.kind, result.detail)) if isinstance(result, Lost) else result


class Isolated:
    """A measurer as processes want it: a job at a time. A sample is measured in one go, so it gives no sign of life."""

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer

    def __call__(self, job: Job, alive: Callable[[], None]) -> Measured:
        return self._measurer(job[1])
