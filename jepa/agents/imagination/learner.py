"""The base class of learners: train a controller in dreams."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jepa.agents.controller import ActionSpace, Actor, ActorInputs, Linear, ObservationNormalizer
from jepa.agents.imagination.dream import Dream, Goals, Recorded
from jepa.config import Component

History = list[tuple[int, float]]  # what was done, and the return in the dream then


class Learner(ABC):
    """Trains a controller in dreams.

    Args:
        config: an instance of its `Config`.
        dream: the environment; its dynamics are frozen.
        recorded: starts and goals of dreams.
        space: of the actions.
        goals: from any episode ("any"), or from that of the start.
        actor_inputs: inputs of the controller.
        seed: of all random numbers.
        normalizer: of the inputs of the controller; None: fitted to the recorded latents.

    Attributes:
        horizon: latent steps of a dream.
        build: builds an untrained controller from (normalizer, space, **network), to load weights into.
        network: sizes of the controller's network; empty for linear controllers.
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
        normalizer: ObservationNormalizer | None = None,
    ) -> None:
        self.config = config
        self.dream = dream
        self.recorded = recorded
        self.space = space
        self.goals: Goals = goals
        self.seed = seed
        self.horizon: int = config.horizon
        self.normalizer = normalizer or ObservationNormalizer.fitted(recorded.z, actor_inputs)
        self._build()

    @abstractmethod
    def _build(self) -> None:
        """Build the untrained controller and its optimizers."""

    @abstractmethod
    def train(self) -> tuple[Actor | Linear, History]:
        """Train, and return the controller and its return in dreams over time."""
