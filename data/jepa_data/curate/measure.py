"""One sample, measured: its video is decoded once for all stages together. Runs in the processes of an engine."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt64

from jepa_data.curate.config import Look, Resample
from jepa_data.curate.frame_stats import HASHED, look
from jepa_data.curate.resample import as_stored, resampled
from jepa_data.decode import VideoIndex, get_backend
from jepa_data.errors import DecodeError
from jepa_data.shards.finite import check_actions, check_events, check_states
from jepa_data.shards.manifest import ACTIONS, EVENTS, IMAGES, STATES, Manifest, Sample
from jepa_data.shards.media import probe_media, still
from jepa_data.shards.read import ShardFiles, read_labels, read_metadata, read_spatial
from jepa_data.shards.store import Store

Problem = tuple[str, str]  # kind, detail


@dataclass(frozen=True, slots=True)
class Measured:
    """What all stages need to know about one sample.

    Attributes:
        problem: why it cannot be read; everything else means nothing then.
        seconds: frames divided by the rate; 0 for an image.
        motion, brightness, sharpness, hashes: see `frame_stats.Looks`.
        labels: a number per label name of the corpus; -1: none.
        widths: of actions and states after resampling, 0 where there are none.
        not_resampled: why it cannot be resampled.
    """

    problem: Problem | None = None
    still: bool = False
    frames: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    motion: float = 0.0
    brightness: float = 0.0
    sharpness: float = 0.0
    hashes: UInt64[np.ndarray, "4"] = field(default_factory=lambda: np.zeros(HASHED, np.uint64))
    labels: Mapping[str, int] = field(default_factory=dict)
    widths: tuple[int, int] = (0, 0)
    not_resampled: Problem | None = None


@dataclass(frozen=True)
class Measurer:
    """Measures samples of one folder of shards. Sent to each process once.

    Attributes:
        resample: the stage of that kind, if any; without it actions and states must fit the frames as they are.
    """

    store: Store
    manifest: Manifest
    look: Look
    resample: Resample | None

    def __call__(self, sample: Sample) -> Measured:
        """What cannot be read is in `problem`; nothing is raised for it."""
        try:
            return self._measure(sample)
        except DecodeError as error:
            return Measured(problem=(error.kind, error.detail))

    def _measure(self, sample: Sample) -> Measured:
        files = ShardFiles(self.store)
        members = files.read(sample)
        index = sample.video_index() or probe_media(members[sample.media], sample.media)
        metadata = read_metadata(members)
        labels = all_labels(metadata, sample, self.manifest)
        read_spatial(files, sample, self.manifest.spatial, index.frames)  # what is damaged is left out
        widths, not_resampled = self._widths(members, metadata, index)
        looks = look(looked_at(members[sample.media], sample.media, index, self.look))
        return Measured(
            still=sample.media in IMAGES,
            frames=index.frames,
            seconds=index.frames / index.fps if index.fps else 0.0,
            rate=index.fps,
            **asdict(looks),
            labels=labels,
            widths=widths,
            not_resampled=not_resampled,
        )

    def _widths(
        self, members: Mapping[str, bytes], metadata: Mapping[str, Any], index: VideoIndex
    ) -> tuple[tuple[int, int], Problem | None]:
        if self.resample is not None:
            try:
                return resampled(members, metadata, index.seconds, self.resample).widths, None
            except DecodeError as error:
                return (0, 0), (error.kind, error.detail)
        stored = as_stored(members, metadata, index.frames)
        expected = (self.manifest.action_size, len(self.manifest.state_names))
        for name, width, columns in zip((ACTIONS, STATES), stored.widths, expected, strict=True):
            if width != columns:
                raise DecodeError("out of step", f"{name} is {width} wide, the corpus has {columns}")
        if stored.actions is not None:
            check_actions(stored.actions)
        if stored.states is not None:
            check_states(stored.states, self.manifest.state_names)
        if (stored.events is None) == bool(self.manifest.events):
            raise DecodeError("out of step", f"{EVENTS}: it is {'missing' if self.manifest.events else 'not known'}")
        if stored.events is not None:
            check_events(stored.events, self.manifest.events)
        return stored.widths, None


def looked_at(data: bytes, ending: str, index: VideoIndex, wanted: Look) -> UInt8[np.ndarray, "T h w 3"]:
    """The frames that are looked at: evenly spread from the first to the last, never enlarged. Raises DecodeError."""
    scale = min(1.0, wanted.side / min(index.height, index.width))
    size = max(1, round(index.height * scale)), max(1, round(index.width * scale))
    if ending in IMAGES:
        return still(data, size, None)
    numbers = np.unique(np.linspace(0, index.frames - 1, wanted.frames).round().astype(np.int64))
    with get_backend("pyav").open(data, index) as reader:
        return reader.frames(numbers, size=size)


def all_labels(metadata: Mapping[str, Any], sample: Sample, manifest: Manifest) -> dict[str, int]:
    """A number for every label of the corpus, -1 where the sample has none. Raises DecodeError ("damaged")."""
    labels = read_labels({"labels": sample.labels}) | read_labels(metadata)
    return {name: labels.get(name, -1) for name in manifest.label_names}
