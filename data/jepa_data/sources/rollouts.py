"""Records a simulated world: a scripted agent acts, and images, actions and ground truth become shards.

Everything about an episode is a function of (seed, episode number), so the same command writes the same bytes.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from jepa_data.errors import DataError
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.manifest import MANIFEST, Manifest
from jepa_data.shards.write import ShardWriter
from jepa_data.spatial.kinds import SpatialInfo
from jepa_data.worlds import make_batch
from jepa_data.worlds.base import WorldBatch, episode_generator
from jepa_data.writable import holding

CHUNK = 64  # episodes simulated side by side
# Actions, events and the world are drawn from the same (seed, episode): this keeps the streams of numbers apart.
ACTION_STREAM = zlib.crc32(b"actions")
EVENT_STREAM = zlib.crc32(b"events")
MAX_CRF = 51  # x264


@dataclass(frozen=True)
class Recording:
    """What to record.

    Attributes:
        episodes: in all; the last `test_share` of them become the test split.
        frames: per episode, at the rate of the world; fewer of one that ends before.
        policy: who acts; one of the world's `policies`.
        crf: x264's constant quality, 0 (all but lossless) to 51. Where a step changes few pixels, the errors of 14 are
            a quarter of what it changes in principal components, and those of 0 a hundredth, in a third more bytes.
        spatial: kinds of true arrays of every frame that are recorded too, such as ("mask", "keypoints").
        events: mean number of events in an episode, at most one a step, each as likely as the others; 0: none, and the
            recording is as of a world without events. Starts and actions do not depend on it.
    """

    world: str
    episodes: int
    frames: int = 40
    image_size: int = 64
    seed: int = 0
    test_share: float = 0.15
    policy: str = "random"
    crf: int = 14
    spatial: tuple[str, ...] = ()
    events: int | float = 0.0

    def __post_init__(self) -> None:
        if self.episodes < 2 or self.frames < 2:
            raise DataError(
                f"a recording needs at least 2 episodes of 2 frames, found {self.episodes} of {self.frames}"
            )
        if not 0 <= self.crf <= MAX_CRF:
            raise DataError(f"crf is the quality of the video, from 0 (best) to {MAX_CRF}, found {self.crf}")
        if not 0 <= self.events <= self.frames - 1:
            raise DataError(
                f"events is their mean number in an episode, from 0 to its {self.frames - 1} steps, found {self.events}"
            )
        if not 0 < self.test_share < 1:
            raise DataError(
                f"test_share is the share of episodes kept for testing, between 0 and 1, found {self.test_share}"
            )

    @property
    def train_episodes(self) -> int:
        """At least one episode goes to each split."""
        return min(self.episodes - 1, max(1, round(self.episodes * (1 - self.test_share))))


def record(
    recording: Recording, out: Path, *, overwrite: bool = False, progress: Callable[[int], None] = lambda done: None
) -> Manifest:
    """Record to a folder of shards. `progress` is called with the number of episodes done.

    Raises:
        DataError: the world has no such name or no events, or `out` is not empty.
    """
    r = recording
    about = make_batch(r.world, np.arange(1), image_size=r.image_size, seed=r.seed)
    if r.policy not in about.policies:
        raise DataError(f"{r.world} has the policies {', '.join(about.policies)}, found {r.policy!r}")
    infos = _spatial_infos(about, r.spatial)
    if r.events and not about.events:
        raise DataError(f"{r.world} has no events; record it without (events 0)")
    events = tuple(about.events) if r.events else ()
    open_writer = partial(
        ShardWriter,
        out,
        fps=about.fps,
        image_size=r.image_size,
        world=about.name,
        action_size=about.action_size,
        state_names=about.state_names,
        label_names=about.label_names,
        spatial=infos,
        events=events,
        seed=r.seed,
        overwrite=overwrite,
    )
    with holding(out), open_writer() as writer, ThreadPoolExecutor(max_workers=2) as pool:
        encode = partial(encode_mp4, fps=about.fps, crf=r.crf)
        for chunk in _simulate(r):
            for episode, encoded in zip(chunk, pool.map(encode, [e.video for e in chunk]), strict=True):
                metadata = {
                    "world": about.name,
                    "world_version": about.version,
                    "episode": episode.number,
                    "seed": r.seed,
                    "policy": r.policy,
                    "labels": episode.labels,
                }
                split = "train" if episode.number < r.train_episodes else "test"
                key = f"episode-{episode.number:06d}"
                states = episode.states if about.state_names else None
                frames = len(episode.video)
                happened = episode.events if events else None
                writer.write(
                    split,
                    key,
                    encoded,
                    frames,
                    episode.actions,
                    states,
                    metadata,
                    spatial=episode.spatial,
                    events=happened,
                )
            progress(chunk[-1].number + 1)
    return Manifest.from_file((out / MANIFEST).read_text())


def _spatial_infos(world: WorldBatch, kinds: Sequence[str]) -> list[SpatialInfo]:
    """Raises DataError if the world does not compute these kinds of arrays."""
    there = {info.kind: info for info in world.spatial_infos}
    if unknown := [kind for kind in kinds if kind not in there]:
        known = ", ".join(there) or "nothing of the kind"
        raise DataError(f"spatial: {world.name} computes {known}, found {unknown[0]!r}")
    return [there[kind] for kind in dict.fromkeys(kinds)]


@dataclass(frozen=True)
class _Episode:
    """T is the `frames` of the recording, or what there was of an episode that ended before."""

    number: int
    video: UInt8[np.ndarray, "T h w 3"]
    actions: Float32[np.ndarray, "P A"]
    states: Float[np.ndarray, "T X"]
    labels: dict[str, int]
    spatial: dict[str, np.ndarray]
    events: Int[np.ndarray, "P 1"]


def draw_events(
    generators: Sequence[np.random.Generator], steps: int, rate: int | float, count: int
) -> Int[np.ndarray, "E steps"]:
    """Numbers of events, 0 for none: `rate` of them in an episode on average, each of `count` as likely."""
    drawn = np.zeros((len(generators), steps), np.int64)
    for row, rng in zip(drawn, generators, strict=True):
        happens = rng.uniform(size=steps) < rate / steps
        row[:] = np.where(happens, rng.integers(1, count + 1, steps), 0)
    return drawn


def _simulate(r: Recording) -> Iterator[list[_Episode]]:
    for first in range(0, r.episodes, CHUNK):
        episodes = np.arange(first, min(first + CHUNK, r.episodes))
        batch = make_batch(r.world, episodes, image_size=r.image_size, seed=r.seed)
        generators = [episode_generator(r.seed ^ ACTION_STREAM, episode) for episode in episodes.tolist()]
        actions = batch.act(r.policy, generators, r.frames)
        events = np.zeros(actions.shape[:2], np.int64)
        if r.events:
            generators = [episode_generator(r.seed ^ EVENT_STREAM, episode) for episode in episodes.tolist()]
            events = draw_events(generators, r.frames - 1, r.events, len(batch.events))
        images = [batch.render()]
        states = [batch.states()]
        spatial = {kind: [batch.spatial(kind)] for kind in r.spatial}
        lengths = np.ones(len(episodes), dtype=np.intp)
        for t in range(r.frames - 1):
            lengths += ~batch.terminated()
            batch.trigger(events[:, t])
            batch.step(actions[:, t])
            images.append(batch.render())
            states.append(batch.states())
            for kind, arrays in spatial.items():
                arrays.append(batch.spatial(kind))
        video = np.stack(images, 1)
        all_states = np.stack(states, 1)
        all_spatial = {kind: np.stack(arrays, 1) for kind, arrays in spatial.items()}
        yield [
            _Episode(
                number=first + row,
                video=video[row, :length],
                actions=actions[row, : length - 1],
                states=all_states[row, :length],
                labels={name: int(x[row]) for name, x in batch.labels.items()},
                spatial={kind: x[row, :length] for kind, x in all_spatial.items()},
                events=events[row, : length - 1, None],
            )
            for row, length in enumerate(lengths.tolist())
        ]
