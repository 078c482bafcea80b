"""What learns in dreams."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jepa.agents.controller import ActionSpace, Actor, ActorInputs, Linear, ObservationNormalizer
from jepa.agents.imagination.dream import Dream, Goals, Recorded
from jepa.config import Component

History = list[tuple[int, float]]  # what was done, and the return in the dream then


class Learner(ABC):
    """Trains a controller in dreams.

    Args:
        config: of its own `Config`.
        dream: where; its dynamics are used and never changed.
        recorded: where dreams start, and their goals.
        space: of the actions.
        goals: of other episodes too ("any"), or of the start's own.
        actor_inputs: what the controller sees.
        seed: of all that is drawn.

    Attributes:
        normalizer: of what the controller sees, fitted to the recorded latents.
        horizon: latent steps of a dream.
        build: an untrained controller of (normalizer, space, **network), whose weights may be loaded.
        network: sizes of the controller's network; empty where it has none.
    """

    Config: type[Component]
    build: ClassVar[type[Actor] | type[Linear]]
    network: dict[str, int]

    def __init__(
        self,
        config: Any,
        dream: Dream,
        recorded: Recorded,
        space: ActionSpace,
        *,
        goals: Goals = "episode",
        actor_inputs: ActorInputs = "goal",
        seed: int = 0,
    ) -> None:
        self.config = config
        self.dream = dream
        self.recorded = recorded
        self.space = space
        self.goals: Goals = goals
        self.seed = seed
        self.horizon: int = config.horizon
        self.normalizer = ObservationNormalizer.fitted(recorded.z, actor_inputs)
        self._build()

    @abstractmethod
    def _build(self) -> None:
        """The untrained controller, and what trains it."""

    @abstractmethod
    def train(self) -> tuple[Actor | Linear, History]:
        """The controller, and its return in the dream on the way."""
