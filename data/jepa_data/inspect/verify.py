"""One shard or one sample, looked at wholly: checksums, every frame, and whether its parts fit each other."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jepa_data.decode import VideoIndex, get_backend
from jepa_data.errors import DecodeError
from jepa_data.shards.finite import check_actions, check_events, check_states
from jepa_data.shards.manifest import ACTIONS, EVENTS, IMAGES, METADATA, SPATIAL, STATES, Manifest, Sample, ShardRecord
from jepa_data.shards.media import probe_media
from jepa_data.shards.read import ShardFiles, read_labels, read_metadata, read_npy, read_spatial
from jepa_data.shards.store import Store

SMALL = (16, 16)  # frames are decoded wholly and kept this small
FRAMES = 64  # decoded between two signs of life
BYTES = 2**24  # hashed between two signs of life
Problem = tuple[str, str]  # kind, detail


@dataclass(frozen=True)
class Verified:
    """What was found out about a shard or a sample."""

    frames: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Verifier:
    """Looks at shards and samples of one folder. Sent to each process once.

    Attributes:
        backend: name of the decoder.
    """

    store: Store
    manifest: Manifest
    backend: str

    def __call__(self, job: ShardRecord | Sample, alive: Callable[[], None]) -> Verified:
        try:
            if isinstance(job, ShardRecord):
                return Verified(0, tuple(self._shard(job, alive)))
            return self._sample(job, alive)
        except DecodeError as error:
            return Verified(0, ((error.kind, error.detail),))
        except OSError as error:
            return Verified(0, (("unreadable", f"it cannot be read ({error.strerror or error})"),))

    def _shard(self, shard: ShardRecord, alive: Callable[[], None]) -> Iterator[Problem]:
        path = self.store.fetch(shard.file)
        digest = sha256(path, alive)
        if (size := path.stat().st_size) != shard.bytes:
            yield "truncated", f"{size} bytes, the manifest says {shard.bytes}. Copy it again"
        elif digest != shard.sha256:
            yield "checksum", "its bytes are not those that were written (SHA-256)"

    def _sample(self, sample: Sample, alive: Callable[[], None]) -> Verified:
        members = ShardFiles(self.store).read(sample)
        alive()
        data = members[sample.media]
        index = probe_media(data, sample.media)
        alive()
        problems: list[Problem] = []
        stored = sample.video_index()
        if stored is not None and (differences := different(stored, index)):
            problems.append(("index", f"the index and the video differ in {differences}"))
        try:
            self._decode(data, sample, index, alive)
        except DecodeError as error:
            problems.append((error.kind, error.detail))
        problems += self._rest(sample, members, index.frames)
        problems += self._spatial(sample, index.frames)
        return Verified(index.frames, tuple(problems))

    def _decode(self, data: bytes, sample: Sample, index: VideoIndex, alive: Callable[[], None]) -> None:
        """Raises DecodeError for the first frame that cannot be decoded. Probing an image has decoded it."""
        if sample.media in IMAGES:
            return
        with get_backend(self.backend).open(data, index) as reader:
            for first in range(0, index.frames, FRAMES):
                reader.frames(range(first, min(first + FRAMES, index.frames)), size=SMALL)
                alive()

    def _rest(self, sample: Sample, members: dict[str, bytes], frames: int) -> Iterator[Problem]:
        """Whether arrays, metadata and labels fit the video and the manifest."""
        widths = {ACTIONS: self.manifest.action_size, STATES: len(self.manifest.state_names)}
        for name, columns in widths.items():
            if bool(columns) != (name in members):
                yield name, "it is missing" if columns else "it is there, and the manifest knows none"
            elif columns:
                yield from self._array(name, members[name], frames - (name == ACTIONS), columns)
        yield from self._events(members, frames)
        try:
            labels = read_labels(read_metadata(members))
        except DecodeError as error:
            yield METADATA, error.detail
            return
        yield from self._labels(sample, labels)

    def _spatial(self, sample: Sample, frames: int) -> Iterator[Problem]:
        """Whether aligned arrays are those of the manifest, each part's CRC-32 is right, and numbers can be."""
        known = {info.member for info in self.manifest.spatial}
        for name in sorted(set(sample.members) & set(SPATIAL) - known):
            yield name, "it is there, and the manifest knows none"
        files = ShardFiles(self.store)
        for info in self.manifest.spatial:
            try:
                read_spatial(files, sample, [info], frames)
            except DecodeError as error:
                yield info.member, error.detail

    def _array(self, name: str, data: bytes, rows: int, columns: int) -> Iterator[Problem]:
        try:
            array = read_npy(data, rows)
            if array.shape[1] != columns:
                yield name, f"{array.shape[1]} columns, the manifest says {columns}"
            elif name == ACTIONS:
                check_actions(array)
            else:
                check_states(array, self.manifest.state_names)
        except DecodeError as error:
            yield name, error.detail

    def _events(self, members: dict[str, bytes], frames: int) -> Iterator[Problem]:
        names = self.manifest.events
        if bool(names) != (EVENTS in members):
            yield EVENTS, "it is missing" if names else "it is there, and the manifest knows none"
        elif names:
            try:
                check_events(read_npy(members[EVENTS], frames - 1), names)
            except DecodeError as error:
                yield EVENTS, error.detail

    def _labels(self, sample: Sample, labels: dict[str, int]) -> Iterator[Problem]:
        for name in sorted(labels):
            if sample.labels.get(name, labels[name]) != labels[name]:
                yield "labels", f"{name} is {labels[name]}, the index says {sample.labels[name]}"
        for name in sorted(set(self.manifest.label_names) - set(labels) - set(sample.labels)):
            yield "labels", f"it has no {name}"
        for name, value in labels.items():
            classes = self.manifest.label_values.get(name)
            if value < -1 or (classes is not None and value >= len(classes)):
                yield "labels", f"{name} is {value}, expected -1 to {len(classes) - 1 if classes else 'a class'}"


def sha256(path: Path, alive: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(BYTES):
            digest.update(data)
            alive()
    return digest.hexdigest()


def different(stored: VideoIndex, probed: VideoIndex) -> str:
    """In what two indices of a video differ, in words; empty if in nothing that reading depends on."""
    if stored.frames != probed.frames:
        return f"frames ({stored.frames} and {probed.frames})"
    names = ("width", "height", "rotation", "codec", "time_base")
    pairs = {name: (getattr(stored, name), getattr(probed, name)) for name in names}
    parts = [f"{name} ({one} and {other})" for name, (one, other) in pairs.items() if one != other]
    if not np.array_equal(stored.pts, probed.pts):
        parts.append("times of frames")
    if not np.array_equal(stored.keyframes, probed.keyframes):
        parts.append("keyframes")
    return ", ".join(parts)
