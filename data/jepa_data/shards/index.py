"""Opens a folder of shards: which samples there are, where their bytes lie, and what is amiss."""

import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.manifest import (
    ACTIONS,
    MANIFEST,
    METADATA,
    STATES,
    VIDEO,
    Manifest,
    Sample,
    ShardRecord,
    read_index,
    scan_tar,
)

MAKE = "jepa data record billiards-easy"


@dataclass(frozen=True)
class ShardSet:
    """A folder of shards, opened.

    Attributes:
        samples: what can be read, in the order it was written: split by split, shard by shard.
        lost: samples whose bytes are missing, by shard, in shards that were cut short.
        notes: one line for each thing amiss that was worked around.
    """

    folder: Path
    manifest: Manifest
    samples: tuple[Sample, ...]
    lost: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Read the manifest and the indices; no sample is read.

        A missing index is rebuilt from the headers of its tar. A tar that was cut short keeps the samples before the
        cut; the others are in `lost`.

        Raises:
            DataError: no such folder, no shards in it, no manifest, a shard missing or not the one that was written.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        samples: list[Sample] = []
        lost: dict[str, tuple[str, ...]] = {}
        notes: list[str] = []
        expected = {VIDEO, METADATA} | ({ACTIONS} if manifest.action_size else set())
        expected |= {STATES} if manifest.state_names else set()
        for split, record in manifest.splits.items():
            for shard in record.shards:
                found, missing, amiss = _open_shard(folder, split, shard, expected)
                samples += found
                notes += amiss
                if missing:
                    lost[shard.file] = missing
        return cls(folder, manifest, tuple(samples), lost, tuple(notes))

    def split(self, name: str) -> tuple[Sample, ...]:
        """Samples of one split. Raises DataError if the folder has no such split."""
        if name not in self.manifest.splits:
            raise DataError(f"{self.folder}: has no split {name!r}. It has: {', '.join(self.manifest.splits)}")
        return tuple(sample for sample in self.samples if sample.split == name)

    def lost_of(self, split: str) -> tuple[str, ...]:
        """Keys of the samples of one split whose bytes are missing."""
        return tuple(k for shard in self.manifest.splits[split].shards for k in self.lost.get(shard.file, ()))

    def path(self, sample: Sample) -> Path:
        return self.folder / sample.shard

    def probed(self, sample: Sample) -> Sample:
        """The sample with its video looked at, where the index did not say. Raises DecodeError."""
        if sample.video is not None:
            return sample
        from jepa_data.decode.pyav import PyAVBackend

        offset, size = sample.members[VIDEO]
        with self.path(sample).open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        try:
            video = PyAVBackend().probe(data)
        except DecodeError as error:
            raise error.named(sample.key, str(self.path(sample))) from error
        return replace(sample, frames=video.frames, video=video.to_dict())

    def summary(self) -> dict[str, Any]:
        """What `jepa data inspect` prints: JSON-able, sizes in bytes, durations in seconds."""
        splits = {}
        for name, record in self.manifest.splits.items():
            samples = self.split(name)
            videos = [sample.video for sample in samples if sample.video]
            lengths = [sample.frames for sample in samples if sample.frames]
            splits[name] = {
                "samples": len(samples),
                "lost": len(self.lost_of(name)),
                "frames": sum(lengths),
                "frames_per_sample": [min(lengths), max(lengths)] if lengths else [0, 0],
                "seconds": sum(sample.frames / sample.video["fps"] for sample in samples if sample.video),
                "shards": len(record.shards),
                "bytes": sum(shard.bytes for shard in record.shards),
                "codecs": dict(Counter(video["codec"] for video in videos)),
                "sizes": dict(Counter(f"{video['width']}x{video['height']}" for video in videos)),
                "labels": {
                    label: dict(sorted(Counter(s.labels[label] for s in samples if label in s.labels).items()))
                    for label in self.manifest.label_names
                },
            }
        about = self.manifest.model_dump(mode="json", exclude={"splits"})
        return {"folder": str(self.folder), **about, "splits": splits, "notes": list(self.notes)}


def _read_manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}. Record one: {MAKE} {folder}")
    path = folder / MANIFEST
    if not path.exists():
        tars = sorted(folder.glob("*.tar"))
        if tars:
            raise DataError(
                f"{folder}: {len(tars)} tars and no {MANIFEST}, which is written last: the recording was not finished. "
                f"Record again: {MAKE} {folder} --overwrite"
            )
        found = Counter(entry.suffix or ("folder" if entry.is_dir() else "file") for entry in folder.iterdir())
        contents = ", ".join(f"{count} {kind}" for kind, count in found.most_common(4)) or "nothing"
        raise DataError(f"{folder}: no shards here ({MANIFEST} and *.tar); it holds {contents}. Make some: {MAKE} OUT")
    try:
        return Manifest.model_validate_json(path.read_text())
    except (ValidationError, UnicodeDecodeError) as error:
        why = str(error).splitlines()
        detail = f"{why[1].strip()}: {why[2].strip()}" if len(why) > 2 else why[0]
        raise DataError(f"{path}: not a manifest this version can read ({detail})") from error


def _open_shard(
    folder: Path, split: str, shard: ShardRecord, expected: set[str]
) -> tuple[list[Sample], tuple[str, ...], list[str]]:
    """Samples that can be read, keys of those that cannot, and what is amiss."""
    tar = folder / shard.file
    if "/" in shard.file or "\\" in shard.file:
        raise DataError(f"{folder / MANIFEST}: the shard {shard.file!r} is not a plain file name")
    if not tar.exists():
        raise DataError(
            f"{tar}: missing, with {shard.samples} samples of {split!r}. Copy it from where the shards were made"
        )
    size, notes = tar.stat().st_size, []
    if size > shard.bytes:
        raise DataError(
            f"{tar}: {size} bytes, the manifest says {shard.bytes}: not the file that was written. Copy it again"
        )
    try:
        samples = read_index(tar, split)
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        samples = _rebuilt(tar, split)
        why = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        notes.append(f"{tar}: its index is {why}; {len(samples)} samples were found by their headers")
    whole = [sample for sample in samples if sample.end <= size and expected <= set(sample.members)]
    kept = {sample.key for sample in whole}
    lost = tuple(sample.key for sample in samples if sample.key not in kept)
    unnamed = shard.samples - len(samples)
    if unnamed > 0:
        lost += tuple(f"(sample {len(samples) + i + 1} of the shard)" for i in range(unnamed))
    if lost:
        names = ", ".join(lost[:5]) + (", …" if len(lost) > 5 else "")
        cut = f"cut short ({size} of {shard.bytes} bytes)" if size < shard.bytes else "damaged"
        notes.append(f"{tar}: {cut}, {len(lost)} of {shard.samples} samples are lost: {names}. Copy it again")
    return whole, lost, notes


def _rebuilt(tar: Path, split: str) -> list[Sample]:
    try:
        return scan_tar(tar, split)
    except (tarfile.TarError, EOFError):
        return []
