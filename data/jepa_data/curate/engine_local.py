"""Measuring in processes of this machine. A sample that crashes its decoder, or never comes to an end, costs itself."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from jepa_data.curate.measure import Measured, Measurer
from jepa_data.errors import DecodeError
from jepa_data.process_pool import WorkerFailure, run_in_processes
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Sample

Job = tuple[int, Sample]  # row, sample


def measure_local(
    shards: ShardSet,
    rows: Sequence[int],
    measurer: Measurer,
    processes: int,
    timeout_seconds: float,
    progress: Callable[[int], None],
) -> dict[int, Measured]:
    """Measurements by row; what is damaged, crashes or hangs is in `problem`.

    Args:
        processes: 0: this one, where a decoder's crash ends the program.
        timeout_seconds: a sample that takes longer is given up.
    """
    measurements: dict[int, Measured] = {}

    def jobs() -> Iterator[Job]:
        for row in rows:
            try:
                yield row, shards.samples[row]
            except DecodeError as error:  # its line in the index is damaged
                measurements[row] = Measured(problem=(error.kind, error.detail))

    for row, measured in _results(measurer, jobs(), processes, timeout_seconds):
        measurements[row] = measured
        progress(len(measurements))
    return measurements


class Isolated:
    """A measurer as processes want it. A sample is measured in one go, so it gives no sign of life in between."""

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer

    def __call__(self, job: Job, alive: Callable[[], None]) -> Measured:
        return self._measurer(job[1])


def _results(
    measurer: Measurer, jobs: Iterable[Job], processes: int, timeout_seconds: float
) -> Iterator[tuple[int, Measured]]:
    if not processes:
        yield from ((row, measurer(sample)) for row, sample in jobs)
        return
    for (row, _), result in run_in_processes(Isolated(measurer), jobs, processes, timeout_seconds):
        yield row, Measured(problem=(result.kind, result.detail)) if isinstance(result, WorkerFailure) else result
