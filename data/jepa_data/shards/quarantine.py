"""Quarantine files: a JSON line for each damaged sample. `jepa data check` and the stream write them.

{"key": "clip-17", "shard": "train-000002.tar", "kind": "damaged", "detail": "frame 12 is incomplete"}

A line without a key is about a whole shard.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from jepa_data.errors import DataError
from jepa_data.lines import read_lines
from jepa_data.shards.index import ShardSet
from jepa_data.writable import writing

QUARANTINE = "quarantine.jsonl"


@dataclass(frozen=True)
class Finding:
    """A problem of a sample, or of a shard (`key` is empty)."""

    key: str
    shard: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.shard}{' ' * bool(self.key)}{self.key}: {self.kind}: {self.detail}"


def lost(shards: ShardSet) -> list[Finding]:
    """Findings for samples with missing bytes."""
    return [Finding(key, file, "lost", "its bytes are missing") for file, keys in shards.lost.items() for key in keys]


def write(path: Path, findings: Iterable[Finding]) -> None:
    """Write or replace the file; without findings it is empty. Raises DataError if it cannot be written."""
    with writing(path, "Give another file: --quarantine FILE"):
        path.write_text("".join(json.dumps(asdict(finding)) + "\n" for finding in findings))


def read(path: Path) -> dict[str, frozenset[str]]:
    """Keys of the samples in a quarantine file, by shard. Raises DataError."""
    keys: dict[str, set[str]] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            key = str(record["key"])
            shard = str(record["shard"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f'{path}:{number}: expected a line such as {{"key": …, "shard": …}}, found {line[:60]!r}'
            ) from error
        if key:
            keys.setdefault(shard, set()).add(key)
    return {shard: frozenset(of_shard) for shard, of_shard in keys.items()}


def listed(shards: ShardSet, split: str, keys: dict[str, frozenset[str]]) -> Bool[np.ndarray, " V"]:
    """Samples of a split that are in quarantine. Reads only the index lines of the listed shards."""
    samples = shards.split(split)
    is_listed = np.zeros(len(samples), np.bool_)
    for number, shard in enumerate(shards.manifest.shards):
        if shard.file in keys:
            for row in np.flatnonzero(samples.rows["shard"] == number).tolist():
                is_listed[row] = samples[row].key in keys[shard.file]
    return is_listed
