"""Makes a folder of other people's WebDataset tars readable: a manifest, an index beside each tar, the table.

The tars are not changed. One video or image of a sample is used, its `.json` as metadata.json, with the labels in it
(see labels.py), and a whole number in `.cls` as the label `cls`. Other members are left alone, and named. Tars with
pickles are refused.
"""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from jepa.config.writing import write_text
from jepa_data.errors import DataError, DecodeError
from jepa_data.inspect.external_index import CLASS, SampleInTar, places
from jepa_data.inspect.labels import named_labels, number_labels, repeated_keys
from jepa_data.inspect.tars import find_tars, named_split
from jepa_data.inspect.verify import sha256
from jepa_data.printable import first_few, printable
from jepa_data.process_pool import cores, run_in_processes
from jepa_data.shards import quarantine
from jepa_data.shards.finite import check_events
from jepa_data.shards.manifest import (
    ACTIONS,
    EVENTS,
    MANIFEST,
    MEDIA,
    METADATA,
    SPATIAL,
    STATES,
    Manifest,
    ShardRecord,
    index_line,
    index_name,
)
from jepa_data.shards.media import probe_media
from jepa_data.shards.quarantine import Finding
from jepa_data.shards.read import read_array, read_labels, read_metadata
from jepa_data.shards.resume_log import Finished
from jepa_data.shards.table import TABLE
from jepa_data.shards.write import common, summed, write_table
from jepa_data.spatial.kinds import MAPS, SpatialInfo
from jepa_data.spatial.members import decode, describe
from jepa_data.writable import holding, writing

REJECTED = "rejected.jsonl"
MEMBER_BYTES = 2**31
SHOWN = 5  # classes of a label


@dataclass(frozen=True)
class Entry:
    """What is known of a sample after it was looked at.

    Attributes:
        record: its line of the index; `labels` in it are those that are numbers already.
        named: its labels that are text, see labels.py.
        columns: widths of its arrays, 0 without.
        spatial: its aligned arrays, by kind.
        events: names of its events, from its metadata; () if there are none.
        checksums: CRC-32 of the members that may stay, by their names: arrays that do not agree are left out later.
    """

    record: dict[str, Any]
    named: dict[str, str]
    columns: tuple[int, ...]
    ignored: tuple[str, ...]
    spatial: dict[str, SpatialInfo] = field(default_factory=dict)
    events: tuple[str, ...] = ()
    checksums: Mapping[frozenset[str], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Indexed:
    """What was made. `ignored` counts members by ending or reason; `rejected` are samples that are not usable."""

    manifest: Manifest
    rejected: tuple[Finding, ...]
    ignored: Mapping[str, int]
    notes: tuple[str, ...]

    def lines(self, folder: Path) -> list[str]:
        """The report for people."""
        lines = [f"{folder}: {MANIFEST}, {TABLE} and an index beside each tar are written"]
        for name, split in self.manifest.splits.items():
            lines.append(
                f"  {name:<8} {split.episodes} samples in {len(split.shards)} tar(s), {split.frames} frames, "
                f"{split.seconds / 60:.1f} min"
            )
        if self.manifest.label_names:
            lines.append("  labels   " + ", ".join(self._label(name) for name in self.manifest.label_names))
        lines += [f"  spatial  {info.text()}" for info in self.manifest.spatial]
        if self.ignored:
            lines.append("  ignored  " + ", ".join(f"{count} {what}" for what, count in self.ignored.items()))
        if self.rejected:
            lines.append(f"  {len(self.rejected)} samples are not usable, listed in {folder / REJECTED}; the first:")
            lines += [f"    {finding}" for finding in self.rejected[:3]]
        return lines + [f"  note: {note}" for note in self.notes]

    def _label(self, name: str) -> str:
        classes = self.manifest.label_values.get(name)
        if not classes:
            return name
        return f"{name} ({len(classes)} classes: {first_few(classes, SHOWN)})"


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
        DataError: no tars, a tar with pickles or compressed, no sample that can be used, indices are there, or another
            process writes to the folder.
    """
    notes = list[str]()
    tars, splits = find_tars(folder, split, overwrite, notes)
    if split is None and (plain := [tar.name for tar in tars if named_split(tar) is None]):
        notes.append(f"{len(plain)} tar(s) whose name says no split are taken for train: {plain[0]} … (--split)")
    with holding(folder):
        return _indexed(folder, tars, splits, notes, workers or cores(), timeout_seconds, progress)


def _indexed(
    folder: Path,
    tars: list[Path],
    splits: dict[str, str],
    notes: list[str],
    workers: int,
    timeout_seconds: float,
    progress: Callable[[int, int], None],
) -> Indexed:
    """Look into all tars, and write the manifest and the indices. Raises DataError if no sample can be used."""
    rejected: list[Finding] = []
    ignored: Counter[str] = Counter()
    taken: set[str] = set()
    members: list[SampleInTar] = []
    for tar in tars:
        try:
            members += places(tar, taken, rejected, ignored, notes)
        except DecodeError as error:  # the tar cannot be read at all
            rejected.append(Finding("", tar.name, error.kind, error.detail))
    jobs: list[Path | SampleInTar] = [*tars, *members]
    entries: dict[str, Entry] = {}
    digests: dict[str, str] = {}
    for count, (job, result) in enumerate(run_in_processes(_look, jobs, workers, timeout_seconds), 1):
        tar = job if isinstance(job, Path) else job.tar
        if isinstance(result, Entry):
            entries[result.record["key"]] = result
            ignored.update(result.ignored)
        elif isinstance(result, str):
            digests[tar.name] = result
        else:
            rejected.append(Finding(getattr(job, "key", ""), tar.name, result.kind, result.detail))
        progress(count, len(jobs))
    if not entries:
        raise DataError(f"{folder}: no sample can be used; the first: {next(iter(rejected), 'none found')}")
    by_tar = {tar: [entries[p.key] for p in ps if p.key in entries] for tar, ps in groupby(members, lambda p: p.tar)}
    # Those without a digest could not be read whole.
    used = {tar: samples for tar, samples in by_tar.items() if samples and tar.name in digests}
    notes += [f"{tar.name}: no sample of it can be used; it is left out" for tar in tars if tar not in used]
    widths = _agree(list(entries.values()), ignored)
    events = _common_events(list(entries.values()), bool(widths[0]), ignored)
    spatial = _common_spatial(list(entries.values()), ignored)
    classes = number_labels(((entry.record["labels"], entry.named) for entry in entries.values()), ignored)
    with writing(folder):
        manifest = _write(folder, used, splits, digests, widths, classes, spatial, events)
        if rejected:
            quarantine.write(folder / REJECTED, rejected)
    return Indexed(manifest, tuple(rejected), dict(ignored.most_common()), tuple(notes))


# ---- in the processes ------------------------------------------------------------------------------------------------


def _look(job: Path | SampleInTar, alive: Callable[[], None]) -> Entry | str | DecodeError:
    """SHA-256 of a tar; or a sample's entry, or what is wrong with it."""
    try:
        if isinstance(job, Path):
            return sha256(job, alive)
        return _entry(job)
    except DecodeError as error:
        return error
    except OSError as error:
        return DecodeError("unreadable", f"it cannot be read ({error.strerror or error})")


def _entry(member: SampleInTar) -> Entry:
    """Raises DecodeError."""
    members = {}
    with member.tar.open("rb") as file:
        for name, (offset, size) in member.members.items():
            if size > MEMBER_BYTES:
                raise DecodeError("too large", f".{name} has {size} bytes; at most {MEMBER_BYTES} are read")
            file.seek(offset)
            members[name] = file.read(size)
    media = next(name for name in members if name in MEDIA)
    video = probe_media(members[media], media)
    arrays = (read_array(members, ACTIONS, video.frames - 1), read_array(members, STATES, video.frames))
    columns = tuple(0 if array is None else array.shape[1] for array in arrays)
    ignored: list[str] = []
    labels, named = _json_labels(members, ignored)
    events = _events(members, video.frames, ignored)
    if CLASS in members:
        try:
            labels[CLASS] = int(members.pop(CLASS))
        except ValueError:
            ignored.append(".cls that is no whole number")
    record = {"key": member.key, **video.to_dict(), "members": {name: member.members[name] for name in sorted(members)}}
    main = {name: data for name, data in members.items() if name not in SPATIAL}
    checksums = _checksums(main)
    source = {"url": f"{member.tar.name}/{member.name}"}
    record |= {"labels": labels, "crc32": checksums[frozenset(main)], "source": source}
    return Entry(record, named, columns, tuple(ignored), _spatial(members, video.frames), events, checksums)


def _checksums(members: Mapping[str, bytes]) -> dict[frozenset[str], int]:
    """CRC-32 as `jepa_data.shards.read.crc32`: of these members, and of what stays without any of the arrays."""
    found: dict[frozenset[str], int] = {frozenset(): 0}
    for name in sorted(members):
        longer = {kept | {name}: zlib.crc32(members[name], crc) for kept, crc in found.items()}
        found = found | longer if name in (ACTIONS, STATES, EVENTS) else longer
    return found


def _events(members: dict[str, bytes], frames: int, ignored: list[str]) -> tuple[str, ...]:
    """Names of the events of a sample; without names in its metadata, its events are not used. Raises DecodeError."""
    array = read_array(members, EVENTS, frames - 1)
    if array is None:
        return ()
    names = read_metadata(members).get("events")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        del members[EVENTS]
        ignored.append(f".{EVENTS} (its metadata.json does not name them: events)")
        return ()
    check_events(array, names)
    return tuple(printable(name) for name in names)


def _spatial(members: Mapping[str, bytes], frames: int) -> dict[str, SpatialInfo]:
    """Descriptions of the aligned arrays of a sample. Raises DecodeError for one that cannot be read."""
    infos: dict[str, SpatialInfo] = {}
    for name, kind in SPATIAL.items():
        if name not in members:
            continue
        shape, dtype = describe(members[name])
        try:
            info = SpatialInfo.model_validate({"kind": kind, "shape": shape[1:], "dtype": dtype})
        except ValueError as error:
            raise DecodeError("damaged", f"its {name} is no {kind}: {dtype} of shape {list(shape)}") from error
        if problem := info.problem(decode(members[name], info, frames), frames):
            raise DecodeError("damaged", problem)
        infos[kind] = info
    return infos


def _json_labels(members: dict[str, bytes], ignored: list[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Labels of a sample's `.json`, as numbers and as text. One that the stream could not read is taken out."""
    labels: dict[str, int] = {}
    named: dict[str, str] = {}
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
    actions, states, _ = common((*entry.columns, entry.record["fps"]) for entry in entries) or (0, 0, 0.0)
    for entry in entries:
        for name, kept in ((ACTIONS, actions), (STATES, states)):
            if not kept and _left_out(entry, name):
                ignored[f".{name} (not of the same width in all samples, or rates differ)"] += 1
    return actions, states


def _left_out(entry: Entry, member: str) -> bool:
    """Leave an array of a sample out, if it is there; the checksum is that of the members that stay."""
    if entry.record["members"].pop(member, None) is None:
        return False
    entry.record["crc32"] = entry.checksums[frozenset(entry.record["members"]) - set(SPATIAL)]
    return True


def _common_events(entries: Sequence[Entry], with_actions: bool, ignored: Counter[str]) -> tuple[str, ...]:
    """The events of all samples, if they are the same; otherwise nobody's are used."""
    names = common(entry.events for entry in entries) or ()
    if names and with_actions:
        return names
    for entry in entries:
        if _left_out(entry, EVENTS):
            ignored[f".{EVENTS} (not the same events in all samples, or no actions)"] += 1
    return ()


def _common_spatial(entries: Sequence[Entry], ignored: Counter[str]) -> tuple[SpatialInfo, ...]:
    """The aligned arrays that all samples have, of one kind and shape (maps: of any size); nobody's others are used."""
    agreed: dict[str, SpatialInfo] = {}
    for member, kind in SPATIAL.items():
        infos = [entry.spatial.get(kind) for entry in entries]
        first = infos[0]
        if first is not None and kind in MAPS and len({info and info.shape for info in infos}) > 1:
            first = first.model_copy(update={"shape": (None, None)})
            infos = [info and info.model_copy(update={"shape": (None, None)}) for info in infos]
        if first is not None and all(info == first for info in infos):
            agreed[kind] = first
            continue
        for entry in entries:
            if entry.record["members"].pop(member, None) is not None:
                ignored[f".{member} (not alike in all samples)"] += 1
    return tuple(agreed.values())


def _write(
    folder: Path,
    entries_of: Mapping[Path, Sequence[Entry]],
    splits: Mapping[str, str],
    digests: Mapping[str, str],
    widths: tuple[int, int],
    classes: Mapping[str, tuple[str, ...]],
    spatial: tuple[SpatialInfo, ...],
    events: tuple[str, ...],
) -> Manifest:
    """The indices, the table, and last the manifest, which makes the folder readable."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shards: list[Finished] = []
    for tar, entries in entries_of.items():
        lines = [index_line(entry.record) for entry in entries]
        write_text(folder / index_name(tar.name), "\n".join(lines) + "\n")
        record = ShardRecord(file=tar.name, bytes=tar.stat().st_size, sha256=digests[tar.name], samples=len(lines))
        frames = sum(entry.record["frames"] for entry in entries)
        seconds = sum(entry.record["frames"] / (entry.record["fps"] or math.inf) for entry in entries)
        shards.append(Finished(split=cast(Any, splits[tar.name]), record=record, frames=frames, seconds=seconds))
    records = [entry.record for entries in entries_of.values() for entry in entries]
    manifest = Manifest(
        world=None,
        fps=common(record["fps"] for record in records) or None,
        image_size=write_table(folder, shards)["image_size"],
        action_size=widths[0],
        state_names=tuple(f"state_{i}" for i in range(widths[1])),
        label_names=tuple(records[0]["labels"]),
        label_values=dict(classes),
        events=events,
        spatial=spatial,
        splits={split: summed(of_split) for split, of_split in groupby(shards, lambda shard: shard.split)},
        seed=0,
        made={"command": "index"},
    )
    manifest.save(folder)
    return manifest
