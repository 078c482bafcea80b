"""What learns in dreams."""

from abc import ABC, abstractmethod
from typing import Any

from jepa.agents.controller import ActionSpace, Actor, Linear, ObservationNormalizer

History = list[tuple[int, float]]  # what was done, and the return in the dream then


class Learner(ABC):
    """Trains a controller in dreams: `Class(config, dream, recorded, space, goals=…, actor_inputs=…, seed=…)`.

    Attributes:
        horizon: latent steps of a dream.
        network: sizes of the controller's network, with which `build` makes it again; empty where it has none.
    """

    horizon: int
    network: dict[str, int]

    @abstractmethod
    def train(self) -> tuple[Actor | Linear, History]:
        """The controller, and its return in the dream on the way."""

    @staticmethod
    @abstractmethod
    def build(senses: ObservationNormalizer, space: ActionSpace, **network: Any) -> Actor | Linear:
        """An untrained controller, whose weights may be loaded."""
