"""What is played, as files: a video of the pictures, and shards of the true world that can be trained on.

FOLDER/played-000.mp4   what was imagined, and the truth beside it, as on the page
FOLDER/shards           an episode for each recording in a simulated world; every seventh is of the test split
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from jepa.config.writing import replacing
from jepa_data.shards.encode import Mp4Encoder
from jepa_data.shards.write import ShardWriter
from jepa_data.worlds.base import WorldBatch
from jepa_data.writable import make_folder, writing

SHARDS = "shards"
VIDEO_SIDE = 256  # pixels that a picture has at least in the video
TEST_EVERY = 7
MAX_FRAMES = 20_000  # of a recording


def free_folder(above: Path) -> Path:
    """The first of above/001, above/002, … that is not there."""
    number = 1
    while (above / f"{number:03d}").exists():
        number += 1
    return above / f"{number:03d}"


@dataclass(frozen=True)
class _Episode:
    video: bytes
    frames: int
    actions: Float32[np.ndarray, "P A"]
    events: Float32[np.ndarray, "P 1"]
    states: NDArray[np.floating]
    metadata: dict[str, Any]


@dataclass
class _Take:
    """A recording under way."""

    video: Mp4Encoder | None
    world: Mp4Encoder | None
    metadata: dict[str, Any]
    actions: list[NDArray[np.floating]] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    states: list[NDArray[np.floating]] = field(default_factory=list)
    pictures: int = 0


class Recorder:
    """Records what is played of one run.

    Args:
        folder: for the files; made when the first recording ends.
        fps: of the video.
        seed: of the world.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self._episodes: list[_Episode] = []
        self._take: _Take | None = None
        self._number = 0

    @property
    def frames(self) -> int | None:
        """Pictures recorded so far; None: nothing is being recorded."""
        return None if self._take is None else self._take.pictures

    @property
    def is_full(self) -> bool:
        return self._take is not None and max(self._take.pictures, len(self._take.actions)) >= MAX_FRAMES

    def start(self, world: WorldBatch | None, episode: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Begin a recording. `world`: the true one, one episode as it is now; None: there is none.

        Raises DataError if nothing can be written to the folder.
        """
        make_folder(self.folder)
        if world is None:
            self._take = _Take(None, None, {})
            return
        metadata = {
            "world": world.name,
            "world_version": world.version,
            "episode": episode,
            "seed": self.seed,
            "policy": "played",
            "labels": {name: int(x[0]) for name, x in world.labels.items()},
        }
        encoder = Mp4Encoder(image.shape[0], image.shape[1], world.fps)
        encoder.add(image[None])
        self._take = _Take(None, encoder, metadata, states=[world.states()[0]])
        self._world = world

    def add_step(
        self, action: NDArray[np.floating], event: int, image: UInt8[np.ndarray, "h w 3"], state: NDArray[np.floating]
    ) -> None:
        """A step of the true world: its action, the event before it, and the frame and state it led to."""
        take = self._take
        if take is not None and take.world is not None:
            take.actions.append(action)
            take.events.append(event)
            take.states.append(state)
            take.world.add(image[None])

    def add_picture(self, pictures: Sequence[UInt8[np.ndarray, "h w 3"]], fps: int | float) -> None:
        """A frame of the page."""
        if self._take is None:
            return
        frame = side_by_side(pictures)
        if self._take.video is None:
            self._take.video = Mp4Encoder(frame.shape[0], frame.shape[1], fps, pixel_format="yuv420p")
        self._take.video.add(frame[None])
        self._take.pictures += 1

    def stop(self) -> str | None:
        """End the recording and write it; what was written, for people. None: there was none, or nothing in it.

        Raises:
            DataError: it cannot be written.
        """
        take, self._take = self._take, None
        if take is None or take.video is None:
            return None
        path = self.folder / f"played-{self._number:03d}.mp4"
        with writing(path), replacing(path) as partial:
            partial.write_bytes(take.video.finish())
        self._number += 1
        if take.world is None or not take.actions:
            return f"{path}: {take.pictures} frames. No shards: there is no true world to record"
        actions = np.stack(take.actions).astype(np.float32)
        video = take.world.finish()
        events = np.array(take.events, np.float32)[:, None]
        states = np.stack(take.states)
        self._episodes.append(_Episode(video, len(states), actions, events, states, take.metadata))
        self._write_shards()
        count = len(self._episodes)
        return f"{path}: {take.pictures} frames; {self.folder / SHARDS}: {count} episode{'s' * (count > 1)}"

    def _write_shards(self) -> None:
        """All episodes so far: there are few, and a folder is readable after each. With events, if any happened."""
        world = self._world
        events = tuple(world.events) if any(e.events.any() for e in self._episodes) else ()
        writer = ShardWriter(
            self.folder / SHARDS,
            fps=world.fps,
            image_size=world.image_size,
            world=world.name,
            action_size=world.action_size,
            state_names=world.state_names,
            label_names=world.label_names,
            events=events,
            seed=self.seed,
            overwrite=True,
        )
        with writer:
            for number, e in enumerate(self._episodes):
                split = "test" if number % TEST_EVERY == TEST_EVERY - 1 else "train"
                states = e.states if world.state_names else None
                happened = e.events if events else None
                key = f"played-{number:06d}"
                writer.write(split, key, e.video, e.frames, e.actions, states, e.metadata, events=happened)


def side_by_side(pictures: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "H W 3"]:
    """Pictures in a row, enlarged by whole numbers to at least `VIDEO_SIDE` and the same even height."""
    tall = max(VIDEO_SIDE, *(len(picture) for picture in pictures))
    rows = []
    for picture in pictures:
        factor = max(1, round(tall / len(picture)))
        large = picture.repeat(factor, 0).repeat(factor, 1)
        rows.append(large)
    height = max(len(row) for row in rows)
    height += height % 2
    padded = [np.pad(row, ((0, height - len(row)), (0, row.shape[1] % 2), (0, 0))) for row in rows]
    return np.concatenate(padded, 1)
