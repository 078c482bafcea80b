"""The stages of the stream's pipeline that do the work: places of a batch to decoded clips, clips to a batch.

A sample that cannot be read is replaced by one that the place alone determines: it is named and counted, and every
other clip stays where it was. In evaluation it is dropped instead.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from jepa_data.config import StreamConfig
from jepa_data.decode import Crop, Limits, VideoIndex, get_backend
from jepa_data.errors import DataError, DecodeError
from jepa_data.sampling import (
    AUGMENT,
    CROP,
    START,
    SUBSTITUTE,
    clip_actions,
    clip_indices,
    fitted_box,
    nearest_start,
    possible_starts,
    random_box,
    slot_generator,
    spread_start,
)
from jepa_data.shards.finite import check_actions
from jepa_data.shards.manifest import IMAGES, Sample
from jepa_data.shards.read import ClipSpec, Decoded, SampleReader
from jepa_data.shards.store import Store
from jepa_data.shards.table import Samples
from jepa_data.stream.plan import BatchPlan, ClipIndex
from jepa_data.types import ClipBatch

ROWS = 2**20  # of the table, looked at together
ATTEMPTS = 16  # substitutes tried for one place before the stream gives up


@dataclass(frozen=True)
class Corpus:
    """The samples of one source that clips are drawn from, and what the manifest promises of each.

    Attributes:
        chosen: their numbers among `samples`; None: all.
        action_size: width of the actions; 0: there are none.
        action_stride: actions between two frames of a clip.
        states: width of the states; 0: none are read.
    """

    store: Store
    samples: Samples
    chosen: Tensor | None
    action_size: int
    action_stride: int
    states: int

    def __len__(self) -> int:
        return len(self.samples) if self.chosen is None else len(self.chosen)

    def shard_sizes(self) -> tuple[int, ...]:
        """Samples in each shard that has any, in order."""
        counts = np.zeros(1, np.int64)
        for first in range(0, len(self), ROWS):  # in parts: it is done for millions
            part = slice(first, first + ROWS)
            rows = self.samples.rows[part if self.chosen is None else self.chosen[part].numpy()]
            by_shard = np.bincount(rows["shard"].astype(np.int64))
            counts = np.pad(counts, (0, max(0, len(by_shard) - len(counts))))
            counts[: len(by_shard)] += by_shard
        return tuple(counts[counts > 0].tolist())

    def __getitem__(self, video: int) -> Sample:
        return self.samples[video if self.chosen is None else int(self.chosen[video])]


@dataclass(frozen=True)
class Bad:
    """A sample that could not be read, and where in the stream that was."""

    key: str
    shard: str
    kind: str
    detail: str
    epoch: int
    place: int
    source: int = 0  # number of the source


@dataclass(frozen=True)
class WorkerBatch:
    """What a worker hands over for one batch. `batch` is None if all its samples were dropped."""

    batch: ClipBatch | None
    bad: tuple[Bad, ...]
    sources: tuple[int, ...] = ()  # of its clips
    error: DataError | None = None


class CutClips:
    """Pipeline stage: places of a batch -> samples with decoded clips. Opens its files where it runs."""

    def __init__(self, config: StreamConfig, corpora: Sequence[Corpus], plan: BatchPlan, labels: Sequence[str]) -> None:
        self._config, self._corpora, self._plan, self._labels = config, tuple(corpora), plan, tuple(labels)
        self._readers: dict[int, SampleReader] = {}
        self._lock = threading.Lock()

    def __call__(self, batches: Iterable[list[ClipIndex]]) -> Iterator[tuple[list[dict[str, Any]], list[Bad]]]:
        for slots in batches:
            bad: list[Bad] = []
            samples = [self._sample(slot, bad) for slot in slots]
            yield [sample for sample in samples if sample is not None], bad

    def _sample(self, slot: ClipIndex, bad: list[Bad]) -> dict[str, Any] | None:
        corpus, video, name = self._corpora[slot.source], slot.video, ("?", "?")
        for attempt in range(ATTEMPTS):
            if attempt:
                random = slot_generator(self._plan.seed, SUBSTITUTE, slot.epoch, slot.number, attempt)
                video = int(random.integers(len(corpus)))
            try:
                sample = corpus[video]
                name = sample.key, sample.shard
                return self._cut(sample, slot, attempt)
            except DecodeError as error:
                key, shard = name if name[0] != "?" else (f"number {video}", error.url)
                bad.append(Bad(key, shard, error.kind, error.detail, slot.epoch, slot.position, slot.source))
            if not self._plan.endless:
                return None
        raise DataError(
            f"{corpus.store.url}: {ATTEMPTS} samples in a row cannot be read; the last: "
            f"{bad[-1].key}: {bad[-1].kind}: {bad[-1].detail}"
        )

    def _cut(self, sample: Sample, slot: ClipIndex, attempt: int) -> dict[str, Any]:
        corpus, index = self._corpora[slot.source], sample.video_index()
        assert index is not None
        reader, position = self._open(slot.source), (slot.source, slot.epoch, slot.position)
        start, cut = self._choose(sample, index, slot, attempt)
        result = None if attempt else reader.take(position)
        if result is None:
            result = reader.clips(sample, cut, () if attempt else self._later(sample, index, slot))
        frames, decoded = result
        random = slot_generator(self._plan.seed, AUGMENT, slot.epoch, slot.number)
        return {
            "__key__": sample.key,
            "__url__": f"{corpus.store.url}/{sample.shard}",
            "source": slot.source,
            "video": frames,
            "actions": actions_of(corpus, decoded, cut),
            "states": states_of(corpus, decoded, cut),
            "labels": {name: decoded.labels.get(name, -1) for name in self._labels},
            "start_seconds": float(index.seconds[start]),
            "still": sample.media in IMAGES,
            "seed": int(random.integers(2**62)),
        }

    def _later(self, sample: Sample, index: VideoIndex, slot: ClipIndex) -> list[tuple[tuple[int, int, int], ClipSpec]]:
        """The other clips of a video that come after this one in the epoch, and where they stand."""
        slots = self._plan.later(slot)
        return [((s.source, s.epoch, s.position), self._choose(sample, index, s, 0)[1]) for s in slots]

    def _choose(self, sample: Sample, index: VideoIndex, slot: ClipIndex, attempt: int) -> tuple[int, ClipSpec]:
        """Start frame, and frames and part of the picture, of a clip."""
        config, seconds = self._config, index.seconds
        if sample.media in IMAGES:
            return 0, ClipSpec(np.zeros(config.clip_frames, np.int64), self._crop(index, slot, attempt))
        starts = possible_starts(seconds, config.clip_frames, config.fps, config.stride)
        start = self._start(sample, slot, attempt, starts, seconds)
        indices = clip_indices(seconds, start, config.clip_frames, config.fps, config.stride)
        return start, ClipSpec(indices, self._crop(index, slot, attempt))

    def _start(self, sample: Sample, slot: ClipIndex, attempt: int, starts: int, seconds: np.ndarray) -> int:
        clips = self._plan.sources[slot.source].clips
        if self._plan.endless:
            random = slot_generator(self._plan.seed, START, slot.epoch, slot.number, attempt)
            if self._config.start == "random":
                return int(random.integers(starts))
            low = starts * slot.clip // clips
            return int(random.integers(low, max(low + 1, starts * (slot.clip + 1) // clips)))
        if self._config.start_seconds is None:
            return spread_start(starts, slot.clip, clips)
        start = nearest_start(seconds, self._config.start_seconds)
        if start >= starts:
            raise DataError(
                f"sample {sample.key!r}: a clip that starts at {self._config.start_seconds:g} s ends after the video "
                f"({seconds[-1]:g} s). Lower data.start_seconds to {seconds[starts - 1]:g} or less"
            )
        return start

    def _crop(self, index: VideoIndex, slot: ClipIndex, attempt: int) -> Crop | None:
        config, height, width = self._config, index.height, index.width
        if config.crop is not None and self._plan.endless:
            random = slot_generator(self._plan.seed, CROP, slot.epoch, slot.number, attempt)
            return random_box(random, height, width, config.crop.scale, config.crop.ratio)
        if config.image_size is None:
            return None
        return fitted_box(height, width, config.image_size, config.fit, config.shortest_edge)

    def _open(self, source: int) -> SampleReader:
        with self._lock:
            if source not in self._readers:
                config, plan = self._config, self._plan
                size = None if config.image_size is None else (config.image_size, config.image_size)
                cache = config.cache_mib * 2**20 // len(self._corpora)
                waiting = cache // 2 if plan.sources[source].clips > 1 else 0
                limits = Limits(timeout_seconds=config.decode_seconds)
                self._readers[source] = SampleReader(
                    self._corpora[source].store, get_backend(config.backend), limits, size, cache - waiting, waiting
                )
            return self._readers[source]

    def __getstate__(self) -> tuple[Any, ...]:
        return self._config, self._corpora, self._plan, self._labels

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)


def actions_of(corpus: Corpus, decoded: Decoded, cut: ClipSpec) -> np.ndarray | None:
    """Actions of a clip. Raises DecodeError if they are not finite or not what the manifest promises, or the frames not
    even."""
    if not corpus.action_size:
        return None
    actions, stride = decoded.actions, corpus.action_stride
    if actions is None or actions.shape[1] != corpus.action_size:
        what = "no actions" if actions is None else f"actions of {actions.shape[1]} numbers"
        raise DecodeError("damaged", f"it has {what}, the manifest says {corpus.action_size}")
    check_actions(actions)
    if (np.diff(cut.indices) != stride).any():
        raise DecodeError(
            "uneven", f"frames of a clip are not always {stride} apart, as its actions are. Pack it again"
        )
    return clip_actions(actions, cut.indices, stride)


def states_of(corpus: Corpus, decoded: Decoded, cut: ClipSpec) -> np.ndarray | None:
    """States of a clip. Raises DecodeError if they are not what the manifest promises.

    Missing and infinite ones (foreign shards) are left to whoever reads that state: probes and training name them.
    """
    if not corpus.states:
        return None
    states = decoded.states
    if states is None or states.shape[1] != corpus.states:
        what = "no states" if states is None else f"{states.shape[1]} states"
        raise DecodeError("damaged", f"it has {what}, the manifest says {corpus.states}")
    return states[cut.indices]


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
        arrays = [sample[name] for sample in samples]
        return None if arrays[0] is None else torch.from_numpy(np.stack(arrays))

    return ClipBatch(
        # PyTorch stacks into shared memory in a worker, which saves a copy. Channels stay last in memory, as they were
        # decoded: the device turns them at less cost.
        video=default_collate([torch.from_numpy(np.ascontiguousarray(x["video"])) for x in samples]).permute(
            0, 1, 4, 2, 3
        ),
        actions=stacked("actions"),
        states=stacked("states"),
        keys=tuple(sample["__key__"] for sample in samples),
        start_seconds=torch.tensor([sample["start_seconds"] for sample in samples], dtype=torch.float32),
        is_image=torch.tensor([sample["still"] for sample in samples]),
        seeds=torch.tensor([sample["seed"] for sample in samples]),
        labels={name: torch.tensor([s["labels"][name] for s in samples]) for name in samples[0]["labels"]},
    )
