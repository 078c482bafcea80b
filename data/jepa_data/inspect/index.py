"""Makes a folder of other people's WebDataset tars readable: a manifest, an index beside each tar, the table.

The tars are not changed. One video or picture of a sample is used, its `.json` as metadata.json, with the labels in it
(see labels.py), and a whole number in `.cls` as the label `cls`. Other members are left alone, and named. Tars with
pickles are refused.
"""

import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from jepa_data.errors import DataError, DecodeError
from jepa_data.inspect.external_index import CLASS, SampleInTar, places
from jepa_data.inspect.labels import named_labels, number_labels, repeated_keys
from jepa_data.inspect.tars import find_tars, named_split
from jepa_data.process_pool import WorkerFailure, cores, run_in_processes
from jepa_data.shards import quarantine
from jepa_data.shards.manifest import (
    ACTIONS,
    IMAGES,
    MANIFEST,
    METADATA,
    STATES,
    VIDEOS,
    Manifest,
    ShardRecord,
    SplitRecord,
    index_name,
    parse_line,
)
from jepa_data.shards.media import probe_media
from jepa_data.shards.quarantine import Finding
from jepa_data.shards.read import read_labels, read_metadata, read_npy
from jepa_data.shards.table import ROW, TABLE, row_of
from jepa_data.writable import make_folder, writing

REJECTED = "rejected.jsonl"
MEMBER_BYTES = 2**31
SHOWN = 5  # classes of a label
READ = 2**24  # bytes hashed between two signs of life


@dataclass(frozen=True)
class Entry:
    """What is known of a sample after it was looked at.

    Attributes:
        record: its line of the index; `labels` in it are those that are numbers already.
        named: its labels that are text, see labels.py.
        columns: widths of its arrays, 0 without.
    """

    record: dict[str, Any]
    named: dict[str, str]
    columns: tuple[int, int]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Indexed:
    """What was made. `ignored` counts members by ending or reason; `rejected` are samples that are not usable."""

    manifest: Manifest
    rejected: tuple[Finding, ...]
    ignored: Mapping[str, int]
    notes: tuple[str, ...]

    def lines(self, folder: Path) -> list[str]:
        """The report for people."""
        lines = []
        for name, split in self.manifest.splits.items():
            lines.append(
                f"  {name:<8} {split.episodes} samples in {len(split.shards)} tar(s), {split.frames} frames, "
                f"{split.seconds / 60:.1f} min"
            )
        if self.manifest.label_names:
            lines.append("  labels   " + ", ".join(self._label(name) for name in self.manifest.label_names))
        if self.ignored:
            lines.append("  ignored  " + ", ".join(f"{count} {what}" for what, count in self.ignored.items()))
        if self.rejected:
            lines.append(f"  {len(self.rejected)} samples are not usable, listed in {folder / REJECTED}; the first:")
            lines += [f"    {finding}" for finding in self.rejected[:3]]
        return [f"{folder}: {MANIFEST}, {TABLE} and an index beside each tar are written", *lines] + [
            f"  note: {note}" for note in self.notes
        ]

    def _label(self, name: str) -> str:
        classes = self.manifest.label_values.get(name, ())
        more = ", …" if len(classes) > SHOWN else ""
        return f"{name} ({len(classes)} classes: {', '.join(classes[:SHOWN])}{more})" if classes else name


def index(
    folder: Path,
    *,
    split: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    timeout_seconds: float = 60.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Indexed:
    """Index the tars of a folder, in place.

    Args:
        split: of all tars; None: what each tar's name begins with (train, val, test and their usual other names), or
            train.
        overwrite: replace the manifest and the indices that are there.

    Raises:
        DataError: no tars, a tar with pickles or compressed, no sample that can be used, or indices are there.
    """
    notes = list[str]()
    tars, splits = find_tars(folder, split, overwrite, notes)
    make_folder(folder)  # the indices are written after the long work
    if split is None and (plain := [tar.name for tar in tars if named_split(tar) is None]):
        notes.append(f"{len(plain)} tar(s) whose name says no split are taken for train: {plain[0]} … (--split)")
    rejected, ignored, taken = list[Finding](), Counter[str](), set[str]()
    members = list[SampleInTar]()
    for tar in tars:
        try:
            members += places(tar, taken, rejected, ignored, notes)
        except DecodeError as error:  # the tar cannot be read at all
            rejected.append(Finding("", tar.name, error.kind, error.detail))
    jobs: list[Path | SampleInTar] = [*tars, *members]
    entries, digests = dict[str, Entry](), dict[str, str]()
    for count, (job, result) in enumerate(run_in_processes(_look, jobs, workers or cores(), timeout_seconds), 1):
        file, key = (job.tar.name, job.key) if isinstance(job, SampleInTar) else (job.name, "")
        if isinstance(result, Entry):
            entries[key] = result
            ignored.update(result.ignored)
        elif isinstance(result, str):
            digests[file] = result
        else:
            kind, detail = (result.kind, result.detail) if isinstance(result, WorkerFailure) else result
            rejected.append(Finding(key, file, kind, detail))
        progress(count, len(jobs))
    if not entries:
        raise DataError(f"{folder}: no sample can be used; the first: {rejected[0] if rejected else 'none found'}")
    by_tar = {tar: [entries[p.key] for p in ps if p.key in entries] for tar, ps in groupby(members, lambda p: p.tar)}
    by_tar = {tar: used for tar, used in by_tar.items() if tar.name in digests}  # the others could not be read whole
    notes += [f"{tar.name}: no sample of it can be used; it is left out" for tar in tars if not by_tar.get(tar)]
    widths = _agree(list(entries.values()), ignored)
    classes = number_labels(((entry.record["labels"], entry.named) for entry in entries.values()), ignored)
    with writing(folder):
        used = {tar: members for tar, members in by_tar.items() if members}
        manifest = _write(folder, used, splits, digests, widths, classes)
        if rejected:
            quarantine.write(folder / REJECTED, rejected)
    return Indexed(manifest, tuple(rejected), dict(ignored.most_common()), tuple(notes))


# ---- in the processes ------------------------------------------------------------------------------------------------


def _look(job: Path | SampleInTar, alive: Callable[[], None]) -> Entry | str | tuple[str, str]:
    """SHA-256 of a tar; or a sample's entry, or kind and detail of what is wrong with it."""
    try:
        return _digest(job, alive) if isinstance(job, Path) else _entry(job)
    except DecodeError as error:
        return error.kind, error.detail
    except OSError as error:
        return "unreadable", f"it cannot be read ({error.strerror or error})"


def _digest(tar: Path, alive: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with tar.open("rb") as file:
        while data := file.read(READ):
            digest.update(data)
            alive()
    return digest.hexdigest()


def _entry(member: SampleInTar) -> Entry:
    """Raises DecodeError."""
    members = {}
    with member.tar.open("rb") as file:
        for name, (offset, size) in member.members.items():
            if size > MEMBER_BYTES:
                raise DecodeError("too large", f".{name} has {size} bytes; at most {MEMBER_BYTES} are read")
            file.seek(offset)
            members[name] = file.read(size)
    media = next(name for name in members if name in (*VIDEOS, *IMAGES))
    video, ignored, columns = probe_media(members[media], media), list[str](), [0, 0]
    for i, (name, rows) in enumerate(((ACTIONS, video.frames - 1), (STATES, video.frames))):
        if name in members:
            columns[i] = read_npy(members[name], rows).shape[1]
    labels, named = _json_labels(members, ignored)
    if CLASS in members:
        try:
            labels[CLASS] = int(members.pop(CLASS))
        except ValueError:
            ignored.append(".cls that is no whole number")
    crc = 0
    for name in sorted(members):
        crc = zlib.crc32(members[name], crc)
    record = {"key": member.key, **video.to_dict(), "members": {name: member.members[name] for name in sorted(members)}}
    record |= {"labels": labels, "crc32": crc, "source": {"url": f"{member.tar.name}/{member.name}"}}
    return Entry(record, named, (columns[0], columns[1]), tuple(ignored))


def _json_labels(members: dict[str, bytes], ignored: list[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Labels of a sample's `.json`, as numbers and as text. One that the stream could not read is taken out."""
    labels, named = dict[str, int](), dict[str, str]()
    try:
        metadata = read_metadata(members)
        named = named_labels(metadata, ignored)
        labels = read_labels(metadata)
        if METADATA in members and repeated_keys(members[METADATA]):
            ignored.append(".json that has a key twice (its last value is used)")
    except DecodeError:
        del members[METADATA]
        ignored.append(".json that is no object, or has other `labels` than a number each")
    return labels, named


# ---- writing ---------------------------------------------------------------------------------------------------------


def _agree(entries: Sequence[Entry], ignored: Counter[str]) -> tuple[int, int]:
    """Widths of actions and states, if all samples have the same, at one rate; otherwise nobody's arrays are used."""
    widths, rates = {entry.columns for entry in entries}, {entry.record["fps"] for entry in entries}
    actions, states = widths.pop() if len(widths) == 1 and len(rates) == 1 else (0, 0)
    for entry in entries:
        for name, kept in ((ACTIONS, actions), (STATES, states)):
            if not kept and entry.record["members"].pop(name, None) is not None:
                ignored[f".{name} (not of the same width in all samples, or rates differ)"] += 1
    return actions, states


def _write(
    folder: Path,
    entries_of: Mapping[Path, Sequence[Entry]],
    splits: Mapping[str, str],
    digests: Mapping[str, str],
    widths: tuple[int, int],
    classes: Mapping[str, tuple[str, ...]],
) -> Manifest:
    """The indices, the table, and last the manifest, which makes the folder readable."""
    (folder / MANIFEST).unlink(missing_ok=True)
    parts, rows = dict[str, list[tuple[ShardRecord, Sequence[Entry]]]](), list[tuple]()
    for number, (tar, entries) in enumerate(entries_of.items()):
        split, line, texts = splits[tar.name], 0, list[bytes]()
        for entry in entries:
            texts.append(json.dumps(entry.record, separators=(",", ":")).encode())
            rows.append(row_of(parse_line(texts[-1], str(tar), tar.name, split), number, line, len(texts[-1])))
            line += len(texts[-1]) + 1
        (folder / index_name(tar.name)).write_bytes(b"\n".join(texts) + b"\n")
        shard = ShardRecord(file=tar.name, bytes=tar.stat().st_size, sha256=digests[tar.name], samples=len(texts))
        parts.setdefault(split, []).append((shard, entries))
    np.save(folder / TABLE, np.array(rows, ROW), allow_pickle=False)
    records = [entry.record for entries in entries_of.values() for entry in entries]
    rates, sides = {r["fps"] for r in records}, {min(r["width"], r["height"]) for r in records}
    manifest = Manifest(
        world=None,
        fps=(rates.pop() or None) if len(rates) == 1 else None,
        image_size=sides.pop() if len(sides) == 1 else None,
        action_size=widths[0],
        state_names=tuple(f"state_{i}" for i in range(widths[1])),
        label_names=tuple(records[0]["labels"]),
        label_values=dict(classes),
        splits={split: _summed(shards) for split, shards in parts.items()},
        seed=0,
        made={"command": "index"},
    )
    partial = folder / (MANIFEST + ".partial")
    partial.write_text(manifest.model_dump_json(indent=2) + "\n")
    os.replace(partial, folder / MANIFEST)
    return manifest


def _summed(shards: Sequence[tuple[ShardRecord, Sequence[Entry]]]) -> SplitRecord:
    records = [entry.record for _, entries in shards for entry in entries]
    return SplitRecord(
        episodes=len(records),
        frames=sum(record["frames"] for record in records),
        seconds=round(sum(record["frames"] / record["fps"] for record in records if record["fps"]), 3),
        shards=tuple(shard for shard, _ in shards),
    )
