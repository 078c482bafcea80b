"""Which clip stands in which place of which batch: arithmetic alone, so that any batch can be asked for at any time.

Clips are numbered without end: batch b holds places b*B .. b*B+B-1, an epoch is N*R places (N videos, R clips of each),
and place p belongs to epoch p // (N*R). A batch that an epoch's end falls into is completed from the next epoch.

    places     0 . . . . . . . | . . . . . . . | . . .        N*R = 8, B = 3
    batches    [0  ][1  ][2  ][3  ][4  ][5  ][6  ]
    epochs     0                 1               2

With several clips a video, an epoch goes through its videos in windows of a few batches, and in each window R times in
different orders: clips of one video stand in different batches, near enough for its decoded frames to be still at hand.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from jepa_data.sampling import ORDER, slot_generator

WINDOW_BATCHES = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of one batch. `clip` numbers the clips of a video within an epoch."""

    epoch: int
    place: int  # within the epoch
    video: int  # number of the sample in its split
    clip: int


@dataclass(frozen=True)
class BatchPlan:
    """The order of clips, a pure function of its fields; B is over all ranks.

    Attributes:
        videos, clips: N videos and R clips of each in an epoch.
        endless: training, shuffled and without end; otherwise one pass in order, whose last batch may be smaller.
    """

    videos: int
    clips: int
    batch_size: int
    seed: int
    endless: bool
    rank: int = 0
    world_size: int = 1

    @property
    def epoch_places(self) -> int:
        return self.videos * self.clips

    @property
    def epoch_batches(self) -> int:
        """Batches an epoch needs, the last one counted even if it is not full."""
        return -(-self.epoch_places // self.batch_size)

    @property
    def window(self) -> int:
        """Videos gone through together when there are several clips of each."""
        return WINDOW_BATCHES * self.batch_size

    def batch(self, number: int) -> list[Slot]:
        """This rank's places of one batch."""
        share = self.batch_size // self.world_size
        first = number * self.batch_size + self.rank * share
        places = range(first, first + share)
        if not self.endless:
            return [self._in_order(place) for place in places if place < self.epoch_places]
        slots = []
        for place in places:
            epoch, within = divmod(place, self.epoch_places)
            video, clip = divmod(int(self._order(epoch)[within]), self.clips)
            slots.append(Slot(epoch, within, video, clip))
        return slots

    def batches(self, first: int, last: int, step: int = 1) -> Iterator[list[Slot]]:
        """Batches `first`, `first + step`, ... below `last`."""
        for number in range(first, last, step):
            yield self.batch(number)

    def _in_order(self, place: int) -> Slot:
        video, clip = divmod(place, self.clips)
        return Slot(0, place, video, clip)

    def _order(self, epoch: int) -> Int64[np.ndarray, " O"]:
        """`video * R + clip` for each place of an epoch."""
        kept: dict[int, Int64[np.ndarray, " O"]] = self.__dict__.setdefault("_orders", {})
        if epoch not in kept:
            for old in [e for e in kept if e < epoch - 1]:
                del kept[old]
            kept[epoch] = self._shuffled(slot_generator(self.seed, ORDER, epoch))
        return kept[epoch]

    def _shuffled(self, random: np.random.Generator) -> Int64[np.ndarray, " O"]:
        videos = random.permutation(self.videos).astype(np.int64)
        if self.clips == 1:
            return videos
        parts = []
        for first in range(0, self.videos, self.window):
            window = videos[first : first + self.window]
            parts += [random.permutation(window) * self.clips + clip for clip in range(self.clips)]
        return np.concatenate(parts)
