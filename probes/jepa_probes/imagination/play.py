"""What a controller plays in a world that sets no goals."""

from dataclasses import dataclass

import numpy as np

from jepa_data.worlds import make_batch
from jepa_data.worlds.base import WorldBatch
from jepa_probes.planning.tasks import FIRST_EPISODE


@dataclass(frozen=True)
class Play:
    """What is played in a world that sets no goals. Saved with every result.

    Attributes:
        episodes: number i is episode 1,000,000 + i of `seed`, which is in no recording.
        steps: of the world, or fewer where it ends before.
    """

    world: str
    world_version: int
    image_size: int
    episodes: int
    steps: int
    seed: int

    def start(self) -> WorldBatch:
        """The episodes at their beginning."""
        numbers = FIRST_EPISODE + np.arange(self.episodes)
        return make_batch(self.world, numbers, image_size=self.image_size, seed=self.seed)
