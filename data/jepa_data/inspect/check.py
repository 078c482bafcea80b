"""Checks a folder of shards wholly, on all cores: every checksum, every frame, every array.

A video that crashes its decoder, or never comes to an end, is named like any other that cannot be read.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_data.config import Access
from jepa_data.errors import DataError, DecodeError
from jepa_data.inspect.verify import Verified, Verifier
from jepa_data.process_pool import WorkerFailure, cores, run_in_processes
from jepa_data.shards import quarantine
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Sample, ShardRecord
from jepa_data.shards.quarantine import QUARANTINE, Finding
from jepa_data.shards.store import open_store
from jepa_data.writable import check_file

SHOWN = 10  # findings printed


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        samples, shards, frames: looked at; `sound` samples have nothing wrong with them.
        findings: in the order of the shards.
        notes: problems found when the folder was opened.
        seconds: it took.
        written: the quarantine file.
    """

    samples: int
    sound: int
    shards: int
    frames: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    seconds: float
    written: Path

    @property
    def kinds(self) -> dict[str, int]:
        """How many findings of each kind, the most frequent first."""
        return dict(Counter(finding.kind for finding in self.findings).most_common())

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"written": str(self.written), "kinds": self.kinds}

    def lines(self) -> list[str]:
        """The report for people."""
        speed = self.frames / max(self.seconds, 1e-9)
        lines = [
            f"{self.sound} of {self.samples} samples are sound: {self.frames} frames decoded, {self.shards} shard(s) "
            f"hashed, in {self.seconds:.1f} s ({speed:.0f} frames a second)"
        ]
        lines += [f"note: {note}" for note in self.notes]
        if not self.findings:
            return lines
        lines += [f"{len(self.findings)} finding(s), listed in {self.written}:"]
        lines += [f"  {count:>6}  {kind}" for kind, count in self.kinds.items()]
        lines += [f"  {finding}" for finding in self.findings[:SHOWN]]
        if len(self.findings) > SHOWN:
            lines.append(f"  … and {len(self.findings) - SHOWN} more")
        return lines


def check(
    folder: str | Path,
    *,
    workers: int | None = None,
    timeout_seconds: float = 60.0,
    quarantine_file: Path | None = None,
    backend: str = "pyav",
    access: Access | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Checked:
    """Look at every byte of a folder of shards, and write the quarantine file.

    Args:
        workers: processes; None: one a core.
        timeout_seconds: a sample that makes no progress for so long (a few dozen frames) is given up.
        quarantine_file: where findings are written; None: `quarantine.jsonl` in the folder.
        backend: name of the decoder.
        progress: called with how many shards and samples are done, and how many there are.

    Raises:
        DataError: the folder cannot be opened, or the quarantine file not be written.
    """
    began = time.monotonic()
    shards = ShardSet.open(open_store(folder, access))
    written = _quarantine_path(shards, quarantine_file)
    records = {shard.file: shard for shard in shards.manifest.shards}
    order = {file: i for i, file in enumerate(records)}
    findings = quarantine.lost(shards)
    unsummed = list[str]()
    frames = 0
    work = Verifier(shards.store, shards.manifest, backend)
    done = run_in_processes(work, _jobs(shards, records, findings, unsummed), workers or cores(), timeout_seconds)
    for count, (job, result) in enumerate(done, 1):
        if isinstance(result, WorkerFailure):
            result = Verified(0, ((result.kind, result.detail),))
        frames += result.frames
        findings += [Finding(*_name(job), kind, detail) for kind, detail in result.problems]
        progress(count, len(shards.samples) + len(records))
    findings.sort(key=lambda finding: (order[finding.shard], finding.key))
    bad = {(finding.shard, finding.key) for finding in findings if finding.key}
    quarantine.write(written, findings)
    samples = sum(record.samples for record in records.values())
    seconds = time.monotonic() - began
    notes = shards.notes
    if unsummed and not any("have no checksums" in note for note in notes):
        notes += (
            f"{len(unsummed)} samples have no checksum of their own: training may not notice a changed byte of them. "
            f"Make them: `jepa data index {folder} --overwrite`",
        )
    return Checked(samples, samples - len(bad), len(records), frames, tuple(findings), notes, seconds, written)


def _jobs(
    shards: ShardSet, records: dict[str, ShardRecord], findings: list[Finding], unsummed: list[str]
) -> Iterator[ShardRecord | Sample]:
    """Each shard, then its samples: hashing brings its bytes into memory.

    Adds what the indices alone show, and the keys of samples without a checksum.
    """
    seen: set[int] = set()
    ends = np.searchsorted(shards.samples.rows["shard"], range(len(records)), side="right").tolist()
    for (file, record), first, end in zip(records.items(), [0, *ends], ends, strict=False):
        yield record
        for number in range(first, end):
            try:
                sample = shards.samples[number]
            except DecodeError as error:
                findings.append(Finding(f"(sample {number + 1} of the folder)", file, error.kind, error.detail))
                continue
            if hash(sample.key) in seen:
                findings.append(Finding(sample.key, file, "two of one key", "another sample has the same key"))
            seen.add(hash(sample.key))
            if sample.crc32 is None:
                unsummed.append(sample.key)
            yield sample


def _name(job: ShardRecord | Sample) -> tuple[str, str]:
    """Key and shard."""
    if isinstance(job, ShardRecord):
        return "", job.file
    return job.key, job.shard


def _quarantine_path(shards: ShardSet, file: Path | None) -> Path:
    """Of the quarantine file. Raises DataError before the work, not after it."""
    if file is None and shards.store.folder is None:
        raise DataError(f"{shards.url}: say where the findings go: --quarantine FILE")
    path = file or Path(shards.url) / QUARANTINE
    check_file(path, "Give another file: --quarantine FILE")
    return path
