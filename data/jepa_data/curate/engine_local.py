"""Measuring in processes of this machine. A sample that crashes its decoder, or never comes to an end, costs itself."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from jepa_data.curate.measure import Measured, Measurer
from jepa_data.errors import DecodeError
from jepa_data.process_pool import Alive, WorkerFailure, run_in_processes
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


def _results(
    measurer: Measurer, jobs: Iterable[Job], processes: int, timeout_seconds: float
) -> Iterator[tuple[int, Measured]]:
    if not processes:
        yield from ((row, measurer(sample)) for row, sample in jobs)
        return
    for (row, _), result in run_in_processes(partial(_work, measurer), jobs, processes, timeout_seconds):
        if isinstance(result, WorkerFailure):
            result = Measured(problem=(result.kind, result.detail))
        yield row, result


def _work(measurer: Measurer, job: Job, alive: Alive) -> Measured:
    """A sample is measured in one go, so it gives no sign of life in between."""
    return measurer(job[1])
