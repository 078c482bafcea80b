"""The replay buffer: whole episodes in a folder, and sequences drawn evenly from all their frames.

    frames   f0 f1 f2 f3 | f0 f1 f2 | f0 f1 …          episodes one after the other; |: a reset
    drawn          [──────────────]                    a sequence starts at any frame and may span several episodes

replay/000012.npz    one episode, written when it ends; the oldest ones are deleted
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from jepa.config import UserError
from jepa.config.writing import replacing
from jepa.methods.base import Batch
from jepa_data.transforms import normalize
from jepa_data.writable import writing

FOLDER = "replay"


@dataclass(frozen=True)
class Episode:
    """T frames. `actions[t]` follows frame t (0 at the last), `rewards[t]` is of the step to it (NaN at first)."""

    images: UInt8[np.ndarray, "T h w 3"]
    actions: Float[np.ndarray, "T A"]
    rewards: Float[np.ndarray, " T"]
    terminated: Bool[np.ndarray, " T"]

    def __len__(self) -> int:
        return len(self.rewards)


class Replay:
    """Episodes in memory and on disk.

    Args:
        folder: for the files.
        capacity: frames kept; the last episode is kept whatever its length.

    Attributes:
        episodes: by number.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self.folder, self.capacity = folder, capacity
        self.episodes: dict[int, Episode] = {}

    def __len__(self) -> int:
        return sum(len(episode) for episode in self.episodes.values())

    def append(self, number: int, episode: Episode) -> None:
        """Write an episode; what is above the capacity goes from memory, and from disk with `forget`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with writing(self._path(number)), replacing(self._path(number)) as partial, partial.open("wb") as file:
            np.savez(file, **vars(episode))
        self.episodes[number] = episode
        while len(self) > self.capacity and len(self.episodes) > 1:
            del self.episodes[min(self.episodes)]

    def forget(self) -> None:
        """Delete the files of episodes that are no longer kept. After a checkpoint: the one before needed them."""
        for path in self.folder.glob("*.npz"):
            if path.stem not in {f"{number:06d}" for number in self.episodes}:
                path.unlink()

    def restore(self, numbers: list[int]) -> None:
        """Read the episodes that a checkpoint had. Raises UserError if one is missing or damaged."""
        for number in numbers:
            path = self._path(number)
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    self.episodes[number] = Episode(**dict(arrays))
            except (OSError, ValueError, TypeError, EOFError) as error:
                raise UserError(
                    f"{path}: missing or damaged ({error}); the run cannot go on without it: start with --overwrite"
                ) from None
        self.forget()

    def draw(self, batch: int, length: int, generator: torch.Generator) -> Batch:
        """Sequences that start at any of the frames, with `first` and `targets` of rewards and ends.

        Raises:
            UserError: there are fewer frames than a sequence has.
        """
        total = len(self)
        if total < length:
            raise UserError(
                f"the replay buffer has {total} frames and replay.sequence_frames is {length}: raise random_steps, or "
                "lower sequence_frames"
            )
        starts = torch.randint(total - length + 1, (batch, 1), generator=generator).numpy()
        rows = starts + np.arange(length)
        episodes = list(self.episodes.values())
        ends = np.cumsum([len(episode) for episode in episodes])
        which = np.searchsorted(ends, rows, "right")
        at = rows - np.concatenate([[0], ends[:-1]])[which]

        def stacked(name: str) -> Tensor:
            drawn = [
                [getattr(episodes[e], name)[t] for e, t in zip(*row, strict=True)]
                for row in zip(which.tolist(), at.tolist(), strict=True)
            ]
            return torch.from_numpy(np.array(drawn))

        targets = torch.stack([stacked("rewards"), stacked("terminated")], -1).float()
        video = normalize(stacked("images").permute(0, 1, 4, 2, 3))
        first = torch.from_numpy(at == 0)
        return Batch(video, stacked("actions")[:, :-1].float(), targets=targets, first=first)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"
