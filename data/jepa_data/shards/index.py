"""Open a folder of shards: its samples, their byte offsets, and problems."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import ValidationError

from jepa_data.errors import DataError, DecodeError
from jepa_data.printable import first_few
from jepa_data.shards.manifest import (
    ACTIONS,
    EVENTS,
    MANIFEST,
    METADATA,
    STATES,
    UNFINISHED,
    Manifest,
    Sample,
    ShardRecord,
    index_name,
    parse_line,
)
from jepa_data.shards.scan import scan_tar
from jepa_data.shards.store import Store, open_store
from jepa_data.shards.table import ROW, TABLE, UNREADABLE, Samples, open_table, row_of, rows_of

MAKE = "jepa data pack VIDEOS"


@dataclass(frozen=True)
class ShardSet:
    """A folder of shards, opened.

    Attributes:
        samples: readable samples in the order of writing: split by split, shard by shard.
        lost: samples with missing bytes in truncated shards, by shard.
        notes: problems that were handled, one line each.
    """

    store: Store
    manifest: Manifest
    samples: Samples
    lost: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    @classmethod
    def open(cls, folder: Store | Path | str) -> Self:
        """Read the manifest and map the table, without reading samples.

        A missing index is rebuilt from the headers of its tar. In a truncated tar, samples after the cut are in `lost`.

        Args:
            folder: a folder, a URL, or a store from `open_store`.

        Raises:
            DataError: the folder, the shards or the manifest do not exist, or a shard is missing or was replaced.
        """
        store = open_store(folder) if isinstance(folder, Path | str) else folder
        manifest = _read_manifest(store)
        shards = [(shard.file, split) for split, record in manifest.splits.items() for shard in record.shards]
        mapped = _mapped_table(store, manifest.shards)
        wanted = {METADATA: True, ACTIONS: manifest.action_size, STATES: manifest.state_names}
        wanted[EVENTS] = manifest.events
        expected = {name for name, is_wanted in wanted.items() if is_wanted}
        expected |= {info.member for info in manifest.spatial}
        lost: dict[str, tuple[str, ...]] = {}
        kept: dict[int, list[Sample]] = {}
        parts = [np.zeros(0, ROW)]
        stale: list[str] = []
        unchecked = 0
        notes: list[str] = []
        first = 0
        for number, ((file, split), shard) in enumerate(zip(shards, manifest.shards, strict=True)):
            size = _checked_size(store, split, shard)
            if mapped is not None:
                rows = mapped[first : first + shard.samples]
                first += shard.samples
                fits = _rows_fit(store, shard, number, rows)
                if fits and size in (None, shard.bytes):
                    parts.append(rows)
                    continue
                if not fits:
                    stale.append(file)
            rows, samples, missing, problems = _look(store, split, shard, number, size, expected)
            parts.append(rows)
            notes += problems
            if samples:
                kept[number] = samples
                unchecked += 1
            if missing:
                lost[file] = missing
        if mapped is None:
            notes.append(f"{store.url}: {TABLE} is missing or of other shards; the indices were read instead")
        elif stale:
            notes.append(f"{store.url}: {TABLE} does not fit {first_few(stale, 5)}; the indices were read instead")
        if unchecked:
            notes.append(
                f"{store.url}: {unchecked} of {len(shards)} shards have no checksums, which are in their indices: a "
                f"changed byte may go unnoticed. Copy the indices again, or make some: `jepa data index {store.url} "
                "--overwrite`"
            )
        if mapped is None or stale or lost or kept:
            samples = Samples(store, shards, np.concatenate(parts), kept, None)
        else:
            samples = Samples(store, shards, mapped, kept, 0)
        return cls(store, manifest, samples, lost, tuple(notes))

    @property
    def url(self) -> str:
        """The folder, as passed to `open`."""
        return self.store.url

    def split(self, name: str) -> Samples:
        """Samples of one split. Raises DataError if the folder has no such split."""
        if name not in self.manifest.splits:
            raise DataError(f"{self.url}: has no split {name!r}. It has: {', '.join(self.manifest.splits)}")
        return self.samples.of_split(name)

    def lost_of(self, split: str) -> tuple[str, ...]:
        """Keys of the samples of one split with missing bytes."""
        return tuple(k for shard in self.manifest.splits[split].shards for k in self.lost.get(shard.file, ()))

    def path(self, sample: Sample) -> str:
        """The path of the shard of a sample, for messages."""
        return f"{self.url}/{sample.shard}"

    def probed(self, sample: Sample) -> Sample:
        """The sample, with its video probed if the index has no data on it. Raises DecodeError."""
        if sample.video is not None:
            return sample
        from jepa_data.shards.media import probe_media

        try:
            video = probe_media(self.store.read(sample.shard, *sample.members[sample.media]), sample.media)
        except DecodeError as error:
            raise error.named(sample.key, self.path(sample)) from error
        return replace(sample, frames=video.frames, video=video.to_dict())


def _read_manifest(store: Store) -> Manifest:
    try:
        text = store.current(MANIFEST)
    except DecodeError as error:
        raise _no_manifest(store, error) from error
    try:
        manifest = Manifest.from_file(text)
    except ValidationError as error:
        where_and_what = ": ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise DataError(f"{store.url}/{MANIFEST}: not a manifest this version can read ({where_and_what})") from error
    except ValueError as error:
        raise DataError(f"{store.url}/{MANIFEST}: {error}") from None
    for name, count in Counter(shard.file for shard in manifest.shards).items():
        if count > 1:
            raise DataError(f"{store.url}/{MANIFEST}: names the shard {name!r} {count} times. Copy the manifest again")
    if manifest.action_size and not manifest.fps:
        raise DataError(f"{store.url}/{MANIFEST}: has actions of {manifest.action_size} numbers and no fps, their rate")
    store.expect(hashlib.sha256(text).hexdigest(), {shard.file: shard.bytes for shard in manifest.shards})
    return manifest


def _no_manifest(store: Store, error: DecodeError) -> DataError:
    """What lies there instead, and what to do."""
    folder = store.folder
    if folder is None:
        return DataError(f"{store.url}: {error.detail}. It needs the address of a folder with {MANIFEST}")
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        return DataError(f"{folder}: {what}. Make one: {MAKE} {folder}")
    tars = sorted(folder.glob("*.tar"))
    if (folder / UNFINISHED).exists():
        return DataError(
            f"{folder}: the writing of these shards was not finished. Give the same command again: `jepa data pack` "
            "goes on, `jepa data record` and `jepa data curate` begin again with --overwrite"
        )
    if tars:
        return DataError(
            f"{folder}: {len(tars)} tars and no {MANIFEST}. If nothing else writes them, index them: "
            f"jepa data index {folder}"
        )
    endings = Counter(entry.suffix or ("folder" if entry.is_dir() else "file") for entry in folder.iterdir())
    contents = ", ".join(f"{count} {kind}" for kind, count in endings.most_common(4)) or "nothing"
    return DataError(f"{folder}: no shards here ({MANIFEST} and *.tar); it holds {contents}. Make some: {MAKE} OUT")


def _mapped_table(store: Store, records: list[ShardRecord]) -> np.ndarray | None:
    """The table, if it is there and fits the manifest."""
    try:
        rows = open_table(str(store.fetch(TABLE)))
    except (DecodeError, OSError, ValueError):
        return None
    # Whether the rows of each shard are its own is looked at shard by shard: `_rows_fit`.
    return rows if len(rows) == sum(shard.samples for shard in records) else None


def _rows_fit(store: Store, shard: ShardRecord, number: int, rows: np.ndarray) -> bool:
    """Whether rows of the table can be of a shard: lines one after the other that fill its index."""
    if not len(rows):
        return True
    ends = np.cumsum(rows["size"].astype(np.uint64) + np.uint64(1))
    steady = rows["line"][0] == 0 and np.array_equal(ends[:-1], rows["line"][1:])
    if not steady or not rows["size"].all() or not rows["frames"].all() or (rows["shard"] != number).any():
        return False
    size = store.size(index_name(shard.file))
    if size is None:
        return store.folder is None  # elsewhere nobody says
    return size == int(ends[-1])


def _checked_size(store: Store, split: str, shard: ShardRecord) -> int | None:
    """Bytes of a shard, where that is known beforehand. Raises DataError if it is not the shard that was written."""
    if "/" in shard.file or "\\" in shard.file:
        raise DataError(f"{store.url}/{MANIFEST}: the shard {shard.file!r} is not a plain file name")
    size = store.size(shard.file)
    if size is None and store.folder is not None:
        raise DataError(
            f"{store.url}/{shard.file}: missing, with {shard.samples} samples of {split!r}. "
            "Copy it from where the shards were made"
        )
    if size is not None and size > shard.bytes:
        raise DataError(
            f"{store.url}/{shard.file}: {size} bytes, the manifest says {shard.bytes}: not the file that was written. "
            "Copy it again"
        )
    return size


def _look(
    store: Store, split: str, shard: ShardRecord, number: int, size: int | None, expected: set[str]
) -> tuple[np.ndarray, list[Sample], tuple[str, ...], list[str]]:
    """Rows of the samples of a shard that can be read, the samples if the index is lost, lost keys, problems."""
    notes: list[str] = []
    kept: list[Sample] = []
    tar = f"{store.url}/{shard.file}"
    try:
        lines = store.fetch(index_name(shard.file)).read_bytes().split(b"\n")[:-1]
        if len(lines) != shard.samples:
            raise ValueError(f"{len(lines)} lines for {shard.samples} samples")
        samples = [parse_line(line, tar, shard.file, split) for line in lines]
        rows = rows_of(samples, number, lines)
    except UNREADABLE as error:
        if isinstance(error, DataError) and not isinstance(error, DecodeError):
            raise
        samples = kept = scan_tar(store.fetch(shard.file), shard.file, split)
        rows = [row_of(sample, number, i, 0) for i, sample in enumerate(samples)]
        why = "missing" if isinstance(error, DecodeError) else "unreadable"
        notes.append(f"{tar}: its index is {why}; {len(samples)} samples were found by their headers")
    end = shard.bytes if size is None else size
    is_whole = [s.end <= end and expected <= set(s.members) for s in samples]
    lost = tuple(sample.key for sample, there in zip(samples, is_whole, strict=True) if not there)
    lost += tuple(f"(sample {i + 1} of the shard)" for i in range(len(samples), shard.samples))
    if lost:
        cut = f"cut short ({size} of {shard.bytes} bytes)" if end < shard.bytes else "damaged"
        count = f"{len(lost)} of {shard.samples} samples are lost"
        notes.append(f"{tar}: {cut}, {count}: {first_few(lost, 5)}. Copy it again")
    return np.array(list(compress(rows, is_whole)), ROW), kept, lost, notes
