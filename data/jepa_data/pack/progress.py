"""What a packing has got through, kept on disk so that it can go on, and what it could not read."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jepa.config.reading import parse_json
from jepa_data.pack.workers import Packed
from jepa_data.sources.corpus import Item

FINISHED = "packing.jsonl"
REJECTED = "rejected.jsonl"


class Progress:
    """The items of a packing: finished ones are left out next time, those that could not be read are tried again.

    Args:
        out: the folder of shards.
        written: keys of samples in finished shards. An item counts as finished only if all of its are there.

    Attributes:
        items: finished, now or before.
        samples: of those.
        short: pieces that were too short.
        rejected: what could not be read, as in rejected.jsonl.
    """

    def __init__(self, out: Path, written: Iterable[str]) -> None:
        self.items = self.samples = self.short = 0
        self.rejected: list[str] = []
        self._out = out
        self._written = frozenset(written)
        self._pieces = _by_item(self._written)
        self._before = _read(out / FINISHED)
        self._finished = (out / FINISHED).open("a")
        self._finished.write("\n")  # the last line may have been cut off
        self._rejects = (out / REJECTED).open("w")
        self._tally = _Tally()

    def finished(self, item: Item) -> bool:
        """Whether nothing is left to do for an item. It is counted then."""
        before = self._before.get(item.key)
        if before is None or not self._written.issuperset(before["samples"]):
            return False
        self._count(len(before["samples"]), before["short"])
        return True

    def written(self, item: Item) -> frozenset[str]:
        """Keys of the pieces of an item that are in finished shards."""
        return frozenset(self._pieces.get(item.key, ()))

    def add(self, packed: Packed) -> None:
        """Take note of a result. Results of one item follow each other."""
        tally = self._tally
        tally.jobs += len(packed.rest) - 1
        tally.keys += packed.keys
        tally.short += packed.short
        for rejected in packed.rejected:
            self.rejected.append(str(rejected))
            tally.rejected += 1
            self._rejects.write(json.dumps(asdict(rejected)) + "\n")
            self._rejects.flush()
        if tally.jobs:
            return
        self._count(len(tally.keys), tally.short)
        if not tally.rejected:
            record = {"item": packed.item.key, "samples": tally.keys, "short": tally.short}
            self._finished.write(json.dumps(record) + "\n")
            self._finished.flush()
        self._tally = _Tally()

    def remove(self) -> None:
        """The packing is done: keep the list of what was rejected, if there is any."""
        (self._out / FINISHED).unlink()
        if not self.rejected:
            (self._out / REJECTED).unlink()

    def close(self) -> None:
        for file in (self._finished, self._rejects):
            with suppress(OSError):  # every line was flushed; a full disk has been reported by then
                file.close()

    def _count(self, samples: int, short: int) -> None:
        self.items += 1
        self.samples += samples
        self.short += short


@dataclass
class _Tally:
    """What became of the jobs of an item so far."""

    jobs: int = 1  # that are left
    keys: list[str] = field(default_factory=list)
    short: int = 0
    rejected: int = 0


def _by_item(keys: Iterable[str]) -> dict[str, list[str]]:
    """Keys of samples by the item they may belong to: their own key, or that without the number of a piece."""
    by_item: dict[str, list[str]] = {}
    for key in keys:
        by_item.setdefault(key, []).append(key)
        stem, dash, number = key.rpartition("-")
        if dash and number.isdigit():
            by_item.setdefault(stem, []).append(key)
    return by_item


def _read(path: Path) -> dict[str, dict[str, Any]]:
    items = {}
    if not path.is_file():
        return items
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = parse_json(line)
            items[str(record["item"])] = {"samples": list(record["samples"]), "short": int(record["short"])}
        except (ValueError, KeyError, TypeError):
            continue  # the line that was being written
    return items
