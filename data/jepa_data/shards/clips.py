"""The stages of the stream's pipeline that do the work: places of a batch to decoded clips, clips to a batch.

A sample that cannot be read is replaced by one that the place alone determines: it is named and counted, and every
other clip stays where it was. In evaluation it is dropped instead.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jepa_data.config import StreamConfig
from jepa_data.decode import get_backend
from jepa_data.errors import DataError, DecodeError
from jepa_data.sampling import (
    START,
    SUBSTITUTE,
    action_stride,
    clip_actions,
    clip_indices,
    nearest_start,
    possible_starts,
    slot_generator,
    spread_start,
)
from jepa_data.shards.manifest import Sample
from jepa_data.shards.plan import BatchPlan, Slot
from jepa_data.shards.read import SampleReader
from jepa_data.shards.store import Store
from jepa_data.types import ClipBatch

ATTEMPTS = 16  # substitutes tried for one place before the stream gives up


@dataclass(frozen=True)
class Bad:
    """A sample that could not be read, and where in the stream that was."""

    key: str
    shard: str
    kind: str
    detail: str
    epoch: int
    place: int


@dataclass(frozen=True)
class Delivery:
    """What a worker hands over for one batch. `batch` is None if all its samples were dropped."""

    batch: ClipBatch | None
    bad: tuple[Bad, ...]
    error: DataError | None = None


class CutClips:
    """Pipeline stage: places of a batch -> samples with decoded clips. Opens its files where it runs."""

    def __init__(self, config: StreamConfig, store: Store, samples: tuple[Sample, ...], plan: BatchPlan) -> None:
        self._config, self._store, self._samples, self._plan = config, store, samples, plan
        self._reader: SampleReader | None = None

    def __call__(self, batches: Iterable[list[Slot]]) -> Iterator[tuple[list[dict[str, Any]], list[Bad]]]:
        for slots in batches:
            bad: list[Bad] = []
            found = [self._sample(slot, bad) for slot in slots]
            yield [sample for sample in found if sample is not None], bad

    def _sample(self, slot: Slot, bad: list[Bad]) -> dict[str, Any] | None:
        video = slot.video
        for attempt in range(ATTEMPTS):
            if attempt:
                random = slot_generator(self._plan.seed, SUBSTITUTE, slot.epoch, slot.place, attempt)
                video = int(random.integers(len(self._samples)))
            sample = self._samples[video]
            try:
                return self._cut(sample, slot, attempt)
            except DecodeError as error:
                bad.append(Bad(sample.key, sample.shard, error.kind, error.detail, slot.epoch, slot.place))
            if not self._plan.endless:
                return None
        raise DataError(
            f"{self._store.url}: {ATTEMPTS} samples in a row cannot be read; the last: {bad[-1].key}: {bad[-1].kind}"
        )

    def _cut(self, sample: Sample, slot: Slot, attempt: int) -> dict[str, Any]:
        config = self._config
        index = sample.video_index()
        assert index is not None
        seconds = index.seconds
        start = self._start(sample, slot, attempt, possible_starts(seconds, config.clip_frames, config.fps), seconds)
        indices = clip_indices(seconds, start, config.clip_frames, config.fps)
        frames, decoded = self._open().clip(sample, indices)
        actions = decoded.actions
        if actions is not None:
            actions = clip_actions(actions, indices, action_stride(index.fps, config.fps))
        return {
            "__key__": sample.key,
            "__url__": f"{self._store.url}/{sample.shard}",
            "video": frames,
            "actions": actions,
            "states": None if decoded.states is None else decoded.states[indices],
            "labels": decoded.labels,
            "start_seconds": float(seconds[start]),
        }

    def _start(self, sample: Sample, slot: Slot, attempt: int, starts: int, seconds: np.ndarray) -> int:
        if self._plan.endless:
            return int(slot_generator(self._plan.seed, START, slot.epoch, slot.place, attempt).integers(starts))
        if self._config.start_seconds is None:
            return spread_start(starts, slot.clip, self._plan.clips)
        start = nearest_start(seconds, self._config.start_seconds)
        if start >= starts:
            raise DataError(
                f"sample {sample.key!r}: a clip that starts at {self._config.start_seconds:g} s ends after the video "
                f"({seconds[-1]:g} s). Lower data.start_seconds to {seconds[starts - 1]:g} or less"
            )
        return start

    def _open(self) -> SampleReader:
        if self._reader is None:
            config, plan = self._config, self._plan
            size = None if config.image_size is None else (config.image_size, config.image_size)
            reuse = min(plan.window, plan.videos) if plan.clips > 1 and plan.endless else None
            self._reader = SampleReader(self._store, get_backend(config.backend), size, config.cache_mib * 2**20, reuse)
        return self._reader

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None}


def collate(groups: Iterable[tuple[list[dict[str, Any]], list[Bad]]]) -> Iterator[Delivery]:
    """Pipeline stage: samples of a batch -> the batch."""
    for samples, bad in groups:
        yield Delivery(_stack(samples) if samples else None, tuple(bad))


def _stack(samples: list[dict[str, Any]]) -> ClipBatch:
    sizes = {sample["video"].shape for sample in samples}
    if len(sizes) > 1:
        found = " and ".join(f"{w}x{h}" for _, h, w, _ in sorted(sizes)[:2])
        raise DataError(f"videos of different sizes in one batch ({found}). Set data.image_size")
    t, h, w, c = samples[0]["video"].shape
    video = np.empty((len(samples), t, c, h, w), np.uint8)
    for out, sample in zip(video, samples, strict=True):
        out[:] = sample["video"].transpose(0, 3, 1, 2)

    def stacked(name: str) -> torch.Tensor | None:
        arrays = [sample[name] for sample in samples]
        return None if arrays[0] is None else torch.from_numpy(np.stack(arrays))

    return ClipBatch(
        video=torch.from_numpy(video),
        actions=stacked("actions"),
        states=stacked("states"),
        keys=tuple(sample["__key__"] for sample in samples),
        start_seconds=torch.tensor([sample["start_seconds"] for sample in samples], dtype=torch.float32),
        labels={
            name: torch.tensor([sample["labels"].get(name, -1) for sample in samples]) for name in samples[0]["labels"]
        },
    )
