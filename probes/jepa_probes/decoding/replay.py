"""The truth about recorded clips, from the world that they were recorded in: it is played again.

An episode is a function of (seed, episode number, actions, events), so the recorded ones bring back every state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError, DecodeError
from jepa_data.sampling import action_stride
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import ACTIONS, EVENTS, Manifest, Sample
from jepa_data.shards.read import ShardFiles, read_array, read_metadata
from jepa_data.shards.store import open_store
from jepa_data.worlds import make_batch
from jepa_data.worlds.base import WorldBatch
from jepa_probes.decoding.clips import frame_numbers

CHUNK = 64  # episodes played side by side


@dataclass(frozen=True)
class Truth:
    """Masks of frames, and the classes that are objects.

    Attributes:
        names: of the classes.
        objects: names of those that have a place, which are looked for.
    """

    masks: UInt8[np.ndarray, "E S h w"]
    names: tuple[str, ...]
    objects: tuple[str, ...]


def objects_of(world: WorldBatch) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Classes of the world's mask, and those of them that have a place (states NAME.x and NAME.y); () without masks."""
    for info in world.spatial_infos:
        if info.kind == "mask":
            states = set(world.state_names)
            return info.names, tuple(name for name in info.names if {f"{name}.x", f"{name}.y"} <= states)
    return (), ()


def true_masks(
    data: StreamConfig, keys: Sequence[str], starts: Float[np.ndarray, " E"], steps: int, tubelet: int, image_size: int
) -> Truth | None:
    """Masks of the frame that ends each of `steps` latent steps of recorded clips.

    None where there is no truth: plain video, worlds without masks, another version of the world, or shards that do
    not say how their episodes came about.

    Args:
        keys: of the samples.
        starts: seconds from the begin of each sample.
    """
    if len(data.sources) > 1:
        return None
    shards = ShardSet.open(open_store(data.folder, data.remote))
    world = world_of(shards.manifest, image_size)
    if world is None or not objects_of(world)[1]:
        return None
    fps = shards.manifest.fps
    assert fps is not None and shards.manifest.world is not None
    stride = action_stride(fps, data.fps, data.stride)
    numbers = np.stack([frame_numbers(round(start * fps), steps, tubelet, stride) for start in starts.tolist()])
    files = ShardFiles(shards.store)
    samples = {sample.key: sample for sample in shards.samples if sample.key in set(keys)}
    masks = []
    for first in range(0, len(keys), CHUNK):
        part = slice(first, first + CHUNK)
        episodes = [_episode(files, samples[key], world) for key in keys[part]]
        if any(episode is None for episode in episodes):
            return None
        played = [episode for episode in episodes if episode is not None]
        masks.append(_replay(shards.manifest.world, played, numbers[part], image_size))
    names, objects = objects_of(world)
    return Truth(np.concatenate(masks), names, objects)


def world_of(manifest: Manifest, image_size: int) -> WorldBatch | None:
    """A batch of the world that shards were recorded in; None if there is none, or it is not drawn at this size."""
    if manifest.world is None or manifest.fps is None:
        return None
    try:
        return make_batch(manifest.world, np.arange(1), image_size=image_size)
    except (DataError, ValueError, ImportError):
        return None


def world_after(shards: ShardSet, key: str, frames: int, image_size: int) -> WorldBatch | None:
    """The world of a recording, so many frames after its begin; None where its truth is not known.

    Args:
        key: of the sample.
    """
    about = world_of(shards.manifest, image_size)
    if about is None:
        return None
    sample = next(sample for sample in shards.samples if sample.key == key)
    episode = _episode(ShardFiles(shards.store), sample, about)
    if episode is None or len(episode.actions) < frames:
        return None
    world = make_batch(about.name, np.array([episode.number]), image_size=image_size, seed=episode.seed)
    for action, event in zip(episode.actions[:frames], episode.events[:frames], strict=True):
        world.trigger(event[None])
        world.step(action[None])
    return world


@dataclass(frozen=True)
class _Episode:
    number: int
    seed: int
    actions: Float[np.ndarray, "P A"]
    events: Int[np.ndarray, " P"]


def _episode(files: ShardFiles, sample: Sample, world: WorldBatch) -> _Episode | None:
    """How a recorded episode came about; None if it is not known, or was another version of the world."""
    steps = max(0, sample.frames - 1)
    try:
        members = files.read(sample)
        about = read_metadata(members)
        names = tuple(about.get("events", ()))
        if about.get("world_version") != world.version or (names and names != tuple(world.events)):
            return None
        actions = read_array(members, ACTIONS, steps)
        events = read_array(members, EVENTS, steps)
        if actions is None or (events is not None and events.shape[1] != 1):
            return None
        numbers = np.zeros(steps, np.int64) if events is None else events[:, 0].astype(np.int64)
        return _Episode(int(about["episode"]), int(about["seed"]), actions, numbers)
    except (DecodeError, KeyError, TypeError, ValueError):
        return None


def _replay(
    name: str, episodes: Sequence[_Episode], numbers: Int[np.ndarray, "E S"], image_size: int
) -> UInt8[np.ndarray, "E S h w"]:
    """Masks of the frames with these numbers."""
    masks = np.zeros((*numbers.shape, image_size, image_size), np.uint8)
    for seed in sorted({episode.seed for episode in episodes}):
        rows = np.array([row for row, episode in enumerate(episodes) if episode.seed == seed])
        batch = make_batch(name, np.array([episodes[row].number for row in rows]), image_size=image_size, seed=seed)
        last = int(numbers[rows].max())
        actions = np.zeros((len(rows), last, batch.action_size), np.float32)
        events = np.zeros((len(rows), last), np.int64)
        for at, row in enumerate(rows.tolist()):
            known = episodes[row].actions[:last]
            actions[at, : len(known)] = known
            events[at, : len(known)] = episodes[row].events[:last]
        for frame in range(last + 1):
            here = numbers[rows] == frame
            if here.any():
                now = batch.spatial("mask")
                for at, step in np.argwhere(here).tolist():
                    masks[rows[at], step] = now[at]
            if frame < last:
                batch.trigger(events[:, frame])
                batch.step(actions[:, frame])
    return masks
