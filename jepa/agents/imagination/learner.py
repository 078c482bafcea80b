"""What learns in dreams."""

from abc import ABC, abstractmethod
from typing import Any

from jepa.agents.controller import ActionSpace, Actor, ActorInputs, Linear, ObservationNormalizer
from jepa.agents.imagination.dream import Dream, Goals, Recorded
from jepa.config import Component

History = list[tuple[int, float]]  # what was done, and the return in the dream then


class Learner(ABC):
    """Trains a controller in dreams: `Class(config, dream, recorded, space, goals=…, actor_inputs=…, seed=…)`.

    Attributes:
        horizon: latent steps of a dream.
        network: sizes of the controller's network, with which `build` makes it again; empty where it has none.
    """

    Config: type[Component]
    network: dict[str, int]

    def __init__(self, config: Any, dream: Dream, recorded: Recorded, goals: Goals) -> None:
        self.config = config
        self.dream = dream
        self.recorded = recorded
        self.goals: Goals = goals
        self.horizon: int = config.horizon

    def fitted_senses(self, actor_inputs: ActorInputs) -> ObservationNormalizer:
        """What a controller sees, standardized by the recorded latents."""
        return ObservationNormalizer.fitted(self.recorded.z, actor_inputs)

    @abstractmethod
    def train(self) -> tuple[Actor | Linear, History]:
        """The controller, and its return in the dream on the way."""

    @staticmethod
    @abstractmethod
    def build(senses: ObservationNormalizer, space: ActionSpace, **network: Any) -> Actor | Linear:
        """An untrained controller, whose weights may be loaded."""
