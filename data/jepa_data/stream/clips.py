"""The pipeline stages of the stream: from positions of a batch to decoded clips, and from clips to a batch.

A sample that cannot be read is reported, counted, and replaced; the replacement depends only on the position, and all
other clips are unchanged. In evaluation it is dropped instead.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from jepa_data.config import StreamConfig
from jepa_data.decode import Crop, Limits, VideoIndex, get_backend
from jepa_data.errors import DataError, DecodeError
from jepa_data.events import event_columns
from jepa_data.sampling import (
    AUGMENT,
    CROP,
    START,
    SUBSTITUTE,
    clip_actions,
    clip_generator,
    clip_indices,
    fitted_box,
    nearest_start,
    possible_starts,
    random_box,
    spread_start,
)
from jepa_data.shards.finite import check_actions, check_events
from jepa_data.shards.manifest import IMAGES, Sample
from jepa_data.shards.quarantine import Finding
from jepa_data.shards.read import ClipSpec, Decoded, SampleReader, clip_arrays
from jepa_data.shards.store import Store
from jepa_data.shards.table import Samples
from jepa_data.spatial.kinds import SpatialInfo
from jepa_data.stream.latents import Latents
from jepa_data.stream.plan import BatchPlan, ClipIndex
from jepa_data.types import ClipBatch

ROWS = 2**20  # of the table, looked at together
ATTEMPTS = 16  # substitutes tried for one place before the stream gives up


@dataclass(frozen=True)
class Corpus:
    """The samples of one source from which clips are drawn, and their format according to the manifest.

    Attributes:
        chosen: indices into `samples`; None: all.
        action_size: width of the actions; 0: no actions.
        action_stride: actions between two frames of a clip.
        states: width of the states; 0: none are read.
        spatial: aligned arrays that are read.
        events: names of the columns of events; () if none are read.
        has_events: whether its samples have these events; without, none of them happens.
    """

    store: Store
    samples: Samples
    chosen: Tensor | None
    action_size: int
    action_stride: int
    states: int
    spatial: tuple[SpatialInfo, ...] = ()
    events: tuple[str, ...] = ()
    has_events: bool = False

    def __len__(self) -> int:
        return len(self.samples) if self.chosen is None else len(self.chosen)

    def shard_sizes(self) -> tuple[int, ...]:
        """Samples in each shard that has any, in order."""
        counts = np.zeros(1, np.int64)
        for first in range(0, len(self), ROWS):  # in parts: it is done for millions
            rows = self.samples.rows[self._numbers(slice(first, first + ROWS))]
            by_shard = np.bincount(rows["shard"].astype(np.int64))
            counts = np.pad(counts, (0, max(0, len(by_shard) - len(counts))))
            counts[: len(by_shard)] += by_shard
        return tuple(counts[counts > 0].tolist())

    def fingerprint(self) -> str:
        """Of which samples are drawn from: a place in the stream has a meaning for the same ones alone."""
        chosen = b"" if self.chosen is None else self.chosen.numpy().astype(np.int64).tobytes()
        return hashlib.sha256(f"{len(self.samples)} ".encode() + chosen).hexdigest()

    def __getitem__(self, video: int) -> Sample:
        return self.samples[int(self._numbers(video))]

    def _numbers(self, at: Any) -> Any:
        """Among all samples."""
        return at if self.chosen is None else self.chosen[at].numpy()


@dataclass(frozen=True)
class Bad(Finding):
    """A sample that could not be read, and its position in the stream."""

    epoch: int
    position: int
    source: int = 0  # number of the source


@dataclass(frozen=True)
class WorkerBatch:
    """The result of a worker for one batch. `batch` is None if all its samples were dropped."""

    batch: ClipBatch | None
    bad: tuple[Bad, ...]
    sources: tuple[int, ...] = ()  # of its clips
    error: DataError | None = None


@dataclass(eq=False)
class ClipReader:
    """Pipeline stage: positions of a batch -> samples with decoded clips. Opens files in the process where it runs.

    Attributes:
        marks: int64 [slots, 3] in shared memory: the sample that each worker is at; 0: none.
        stuck: source and number of samples that are not decoded, because a decoder never returned from them.
    """

    config: StreamConfig
    corpora: Sequence[Corpus]
    plan: BatchPlan
    labels: Sequence[str]
    latents: Latents | None = None  # read in place of video
    marks: Tensor = field(default_factory=lambda: torch.zeros(1, 3, dtype=torch.int64))
    stuck: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._readers: dict[int, SampleReader] = {}
        self._lock = threading.Lock()
        self._slots: dict[int, int] = {}  # of threads
        self._count = 0

    def __call__(self, batches: Iterable[list[ClipIndex]]) -> Iterator[tuple[list[dict[str, Any]], list[Bad]]]:
        for items in batches:
            bad: list[Bad] = []
            samples = [self._sample(item, bad) for item in items]
            yield [sample for sample in samples if sample is not None], bad

    def _sample(self, item: ClipIndex, bad: list[Bad]) -> dict[str, Any] | None:
        corpus = self.corpora[item.source]
        video = item.video
        for attempt in range(ATTEMPTS):
            if attempt:
                random = clip_generator(self.plan.seed, SUBSTITUTE, item.epoch, item.number, attempt)
                video = int(random.integers(len(corpus)))
            name = (f"number {video}", "")
            try:
                sample = corpus[video]
                name = (sample.key, sample.shard)
                with self._marked(item.source, video):
                    return self._read(sample, item, attempt)
            except DecodeError as error:
                where = (item.epoch, item.position, item.source)
                bad.append(Bad(name[0], name[1] or error.url, error.kind, error.detail, *where))
            if not self.plan.endless:
                return None
        raise DataError(
            f"{corpus.store.url}: {ATTEMPTS} samples in a row cannot be read; the last: {bad[-1]}. Find all of them by "
            f"`jepa data check {corpus.store.url}`, and make or copy these shards again"
        )

    @contextmanager
    def _marked(self, source: int, video: int) -> Iterator[None]:
        """Let the guard know what this worker is at. Raises DecodeError ("timeout") for what was stuck before."""
        if (source, video) in self.stuck:
            raise DecodeError("timeout", "its decoder never returned, and was ended")
        worker = get_worker_info()
        if worker is not None:
            slot = worker.id
        else:
            slot = self._slots.setdefault(threading.get_ident(), len(self._slots)) % len(self.marks)
        self._count += 1
        mark = self.marks.numpy()[slot]
        mark[:] = source + 1, video, self._count
        try:
            yield
        finally:
            mark[:] = 0

    def _read(self, sample: Sample, item: ClipIndex, attempt: int) -> dict[str, Any]:
        corpus = self.corpora[item.source]
        index = sample.video_index()
        assert index is not None
        reader = self._open(item.source)
        start, spec = self._choose(sample, index, item, attempt)
        latents = None if self.latents is None else self.latents.rows(sample.shard, sample.key, spec.indices)
        if latents is not None:
            frames, decoded = np.zeros((len(spec.indices), 0, 0, 3), np.uint8), reader.numbers(sample)
        elif attempt:
            frames, decoded = reader.clips(sample, spec)
        else:
            frames, decoded = reader.take(item.identity) or reader.clips(sample, spec, self._later(sample, index, item))
        random = clip_generator(self.plan.seed, AUGMENT, item.epoch, item.number)
        return {
            "__key__": sample.key,
            "__url__": f"{corpus.store.url}/{sample.shard}",
            "source": item.source,
            "video": frames,
            "latents": latents,
            "actions": actions_of(corpus, decoded, spec),
            "states": states_of(corpus, decoded, spec),
            "events": events_of(corpus, decoded, spec),
            "spatial": clip_arrays(decoded, corpus.spatial, spec, self.config.size),
            "labels": {name: decoded.labels.get(name, -1) for name in self.labels},
            "start_seconds": float(index.seconds[start]),
            "still": sample.media in IMAGES,
            "seed": int(random.integers(2**62)),
        }

    def _later(self, sample: Sample, index: VideoIndex, item: ClipIndex) -> list[tuple[tuple[int, int, int], ClipSpec]]:
        """The later clips of the same video in the epoch, and their positions."""
        return [(later.identity, self._choose(sample, index, later, 0)[1]) for later in self.plan.later(item)]

    def _choose(self, sample: Sample, index: VideoIndex, item: ClipIndex, attempt: int) -> tuple[int, ClipSpec]:
        """Start frame, frame indices and crop of a clip."""
        crop = self._crop(index, item, attempt)
        if sample.media in IMAGES:
            return 0, ClipSpec(np.zeros(self.config.clip_frames, np.int64), crop)
        seconds = index.seconds
        timing = (self.config.clip_frames, self.config.fps, self.config.stride)
        start = self._start(sample, item, attempt, possible_starts(seconds, *timing), seconds)
        return start, ClipSpec(clip_indices(seconds, start, *timing), crop)

    def _start(self, sample: Sample, item: ClipIndex, attempt: int, starts: int, seconds: np.ndarray) -> int:
        clips = self.plan.sources[item.source].clips
        if self.plan.endless:
            random = clip_generator(self.plan.seed, START, item.epoch, item.number, attempt)
            if self.config.start == "random":
                return int(random.integers(starts))
            low = starts * item.clip // clips
            return int(random.integers(low, max(low + 1, starts * (item.clip + 1) // clips)))
        if self.config.start_seconds is None:
            return spread_start(starts, item.clip, clips)
        start = nearest_start(seconds, self.config.start_seconds)
        if start >= starts:
            raise DataError(
                f"{self.corpora[item.source].store.url}/{sample.shard}: sample {sample.key!r}: a clip that starts at "
                f"{self.config.start_seconds:g} s ends after the video ({seconds[-1]:g} s). Lower data.start_seconds "
                f"to {seconds[starts - 1]:g} or less"
            )
        return start

    def _crop(self, index: VideoIndex, item: ClipIndex, attempt: int) -> Crop | None:
        config = self.config
        if config.crop is not None and self.plan.endless:
            random = clip_generator(self.plan.seed, CROP, item.epoch, item.number, attempt)
            return random_box(random, index.height, index.width, config.crop.scale, config.crop.ratio)
        return fitted_box(index.height, index.width, config.image_size, config.fit, config.shortest_edge)

    def _open(self, source: int) -> SampleReader:
        with self._lock:
            if source not in self._readers:
                config = self.config
                cache = config.cache_mib * 2**20 // len(self.corpora)
                waiting = cache // 2 if self.plan.sources[source].clips > 1 else 0
                if config.crop is not None and self.plan.endless:
                    # A video in a random crop is not asked for again: only the other clips of this epoch are kept.
                    cache = waiting = 2 * waiting
                limits = Limits(timeout_seconds=config.decode_seconds)
                store = self.corpora[source].store
                self._readers[source] = SampleReader(
                    store,
                    get_backend(config.backend),
                    limits,
                    config.size,
                    cache - waiting,
                    waiting,
                    self.corpora[source].spatial,
                )
            return self._readers[source]

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self.config, self.corpora, self.plan, self.labels, self.latents, self.marks, self.stuck)
        return ClipReader, fields


def actions_of(corpus: Corpus, decoded: Decoded, spec: ClipSpec) -> np.ndarray | None:
    """Actions of a clip. Raises DecodeError if they are not finite, differ from the manifest, or the frames are not
    evenly spaced."""
    if not corpus.action_size:
        return None
    actions = _of_width(corpus.action_size, decoded.actions, "actions of {} numbers")
    check_actions(actions)
    stride = corpus.action_stride
    if (np.diff(spec.indices) != stride).any():
        raise DecodeError("uneven", f"frames of a clip are not all {stride} apart, as its actions are. Pack it again")
    return clip_actions(actions, spec.indices, stride)


def events_of(corpus: Corpus, decoded: Decoded, spec: ClipSpec) -> np.ndarray | None:
    """Columns [T-1, E] of the events of a clip. Raises DecodeError if they are missing or have no such numbers."""
    if not corpus.events:
        return None
    if not corpus.has_events:
        return np.zeros((len(spec.indices) - 1, len(corpus.events)), np.float32)
    if decoded.events is None:
        raise DecodeError("damaged", "it has no events, and the manifest says that every sample has some")
    check_events(decoded.events, corpus.events)
    numbers = clip_actions(decoded.events, spec.indices, corpus.action_stride).astype(np.intp)
    return event_columns(numbers, len(corpus.events)).max(1)


def states_of(corpus: Corpus, decoded: Decoded, spec: ClipSpec) -> np.ndarray | None:
    """States of a clip. Raises DecodeError if they differ from the manifest.

    Missing and infinite values (in imported shards) are kept: probes and training report them.
    """
    if not corpus.states:
        return None
    return _of_width(corpus.states, decoded.states, "{} states")[spec.indices]


def _of_width(width: int, array: np.ndarray | None, what: str) -> np.ndarray:
    """The array, if it exists and has the width of the manifest. Raises DecodeError otherwise."""
    columns = 0 if array is None else array.shape[1]
    if array is None or columns != width:
        raise DecodeError("damaged", f"it has {what.format(columns)}, the manifest says {width}")
    return array


def collate(groups: Iterable[tuple[list[dict[str, Any]], list[Bad]]]) -> Iterator[WorkerBatch]:
    """Pipeline stage: samples of a batch -> the batch."""
    for samples, bad in groups:
        sources = tuple(sample["source"] for sample in samples)
        yield WorkerBatch(_stack(samples) if samples else None, tuple(bad), sources)


def _stack(samples: list[dict[str, Any]]) -> ClipBatch:
    sizes = {sample["video"].shape for sample in samples}
    if len(sizes) > 1:
        listed = " and ".join(f"{w}x{h}" for _, h, w, _ in sorted(sizes)[:2])
        raise DataError(f"videos of different sizes in one batch ({listed}). Set data.image_size")

    def stacked(name: str) -> Tensor | None:
        arrays: list[Any] = [sample.get(name) for sample in samples]
        return None if arrays[0] is None else torch.from_numpy(np.stack(arrays))

    # PyTorch stacks into shared memory in a worker, which saves a copy. Channels stay last in memory, as they were
    # decoded: the device turns them at less cost.
    video = default_collate([torch.from_numpy(np.ascontiguousarray(sample["video"])) for sample in samples])
    return ClipBatch(
        video=video.permute(0, 1, 4, 2, 3),
        actions=stacked("actions"),
        states=stacked("states"),
        events=stacked("events"),
        keys=tuple(sample["__key__"] for sample in samples),
        start_seconds=torch.tensor([sample["start_seconds"] for sample in samples], dtype=torch.float32),
        is_image=torch.tensor([sample["still"] for sample in samples]),
        seeds=torch.tensor([sample["seed"] for sample in samples]),
        latents=stacked("latents"),
        labels={name: torch.tensor([s["labels"][name] for s in samples]) for name in samples[0]["labels"]},
        spatial={
            kind: torch.from_numpy(np.stack([s["spatial"][kind] for s in samples])) for kind in samples[0]["spatial"]
        },
    )
