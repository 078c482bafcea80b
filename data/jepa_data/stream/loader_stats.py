"""Counts of yielded and unreadable samples; stops the run if too many are unreadable."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.printable import first_few
from jepa_data.shards.index import ShardSet
from jepa_data.stream.clips import Bad, WorkerBatch
from jepa_data.writable import check_file, writing


@dataclass
class LoaderStats:
    """Since the loader was made, in this process.

    Attributes:
        clips: number yielded; `drawn`: per source.
        wait_seconds: spent waiting for data; `seconds`: total time.
        bad, short, lost: samples that cannot be read, are shorter than a clip, or are missing from a truncated shard.
        skipped: samples excluded by a quarantine file.
        kinds: number of errors of each kind.
        stalls: number of reports of the watchdog.
    """

    clips: int = 0
    wait_seconds: float = 0.0
    seconds: float = 0.0
    bad: int = 0
    short: int = 0
    skipped: int = 0
    lost: int = 0
    stalls: int = 0
    drawn: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def clips_per_second(self) -> float:
        return self.clips / (self.seconds or math.inf)

    @property
    def wait_share(self) -> float:
        """Share of the time spent waiting for data."""
        return self.wait_seconds / (self.seconds or math.inf)


class StatsRecorder:
    """Counts for one split of some sources.

    Attributes:
        bad: samples that could not be read, by key; where two of them have one key, the second by shard and key.
    """

    def __init__(self, config: StreamConfig, sources: Sequence[ShardSet], split: str) -> None:
        if config.quarantine is not None:  # before training, not at the first bad sample
            check_file(Path(config.quarantine), "Give another file: data.quarantine")
        self._config = config
        self._split = split
        self._urls = [source.url for source in sources]
        self._names = [source.shards for source in config.sources]
        count = sum(len(source.split(split)) for source in sources)
        self._cut_off = [key for source in sources for key in source.lost_of(split)]
        self._candidates = count + len(self._cut_off)
        self._known: set[tuple[int, str, str]] = set()
        self.stats = LoaderStats(lost=len(self._cut_off))
        self.bad: dict[str, Bad] = {}

    def account(self, worker_batch: WorkerBatch) -> None:
        """Count a worker result. Raises DataError if it is an error, or too many samples are unreadable."""
        if worker_batch.error is not None:
            raise worker_batch.error
        self.stats.drawn.update(self._names[source] for source in worker_batch.sources)
        for bad in worker_batch.bad:
            self.stats.kinds[bad.kind] += 1
            self.record(bad)
        self.check()

    def record(self, bad: Bad) -> None:
        """Count a sample once, and log it if the run has a file for it."""
        identity = bad.source, bad.shard, bad.key
        if identity in self._known:
            return
        self._known.add(identity)
        url = self._urls[bad.source]
        if self.bad.setdefault(bad.key, bad) is not bad:
            self.bad[f"{url}/{bad.shard} {bad.key}"] = bad
        self.stats.bad += 1
        if self._config.quarantine is not None:
            path = Path(self._config.quarantine)
            with writing(path), path.open("a") as file:
                file.write(json.dumps({"url": url, **asdict(bad)}) + "\n")

    def check(self) -> None:
        """Raises DataError if more samples are bad or lost than `data.max_bad_fraction` allows."""
        count = self.stats.bad + self.stats.lost
        limit = self._config.max_bad_fraction
        # One bad sample passes even where it is more than the fraction: small sets would have no tolerance at all.
        if count <= max(int(limit > 0), int(limit * self._candidates)):
            return
        causes = [f"{bad.shard} {bad.key} ({bad.kind})" for bad in self.bad.values()]
        causes += [f"{key} (cut off)" for key in self._cut_off]
        raise DataError(
            f"{', '.join(self._urls)}: {count} of {self._candidates} samples of {self._split!r} cannot be read: "
            f"{first_few(causes, 8)}. data.max_bad_fraction allows {limit:g}: make or copy these shards again, or "
            "raise it"
        )
