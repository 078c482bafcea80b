"""Base classes of predictors: `Predictor`, and `MemorylessPredictor`, which reads only the current latent."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.config import Component
from jepa.events import EventLayout
from jepa.normalize import standardize
from jepa.world_model import Deterministic, NextLatent, State

PointEstimate = Literal["mean", "mode"]  # what stands for a distribution where nothing is drawn


class PredictorConfig(Component):
    """Settings of an action-conditioned predictor."""

    normalize_actions: bool = Field(
        default=True, description="standardize raw actions by their mean and standard deviation in the training data"
    )


@dataclass(frozen=True)
class TensorState:
    """A state whose fields are tensors [B, …]."""

    def repeat(self, k: int) -> Self:
        return self._map(lambda x: x.repeat_interleave(k, 0))

    def gather(self, index: Int[Tensor, " M"]) -> Self:
        return self._map(lambda x: x[index])

    def detach(self) -> Self:
        return self._map(lambda x: x.detach())

    def nbytes(self) -> int:
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, **{field.name: change(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True)
class LatentState(TensorState):
    """The state of a Markov model: the latent itself, [B, N, D]."""

    z: Float[Tensor, "B N D"]


class SampledLatent(ABC):
    """A next latent that can be sampled and has no density, as a NextLatent.

    The last sample is kept: after `step` has continued from it, asking for it again with the same noise costs nothing.
    """

    _last: tuple[Tensor | None, float, Tensor] | None = None

    @abstractmethod
    def draw(self, noise: Float[Tensor, "B N D"] | None, temperature: float) -> Float[Tensor, "B N D"]:
        """What the noise samples; without noise the point that planners see."""

    def mean(self) -> Float[Tensor, "B N D"]:
        return self.sample()

    def sample(self, noise: Float[Tensor, "B N D"] | None = None, temperature: float = 1.0) -> Float[Tensor, "B N D"]:
        if self._last is None or self._last[0] is not noise or self._last[1] != temperature:
            self._last = (noise, temperature, self.draw(noise, temperature))
        return self._last[2]

    def log_prob(self, z: Float[Tensor, "B N D"]) -> None:
        return None


@dataclass(frozen=True)
class PredictionLoss:
    """What a predictor's training minimizes, and what it is made of.

    Attributes:
        terms: scalars by name; "prediction" is minimized, a mean over the numbers of a latent; the others are logged.
        predicted: of latents 1 … S-1 (P = S-1), each from the true ones before it.
    """

    terms: dict[str, Float[Tensor, ""]]
    predicted: Float[Tensor, "B P N D"]


class Predictor(nn.Module, ABC):
    """Dynamics as a module: implements `jepa.world_model.Dynamics`, and a teacher-forced pass for training.

    Args:
        width: D of the latents.
        action_size: width of the action of one latent step (tubelet x raw action).

    Attributes:
        context: maximum number of latents that it reads; None: all so far.
        state_size: width of the proprioceptive state that it reads at every step.
        static: number of dimensions at the end of a latent that never change.
        scale_actions: standardizes raw actions; fitted in training (jepa/normalize.py).
        events: where events stand in an action (jepa/events.py); None: it has none.
        distribution: whether it predicts a distribution, trained from true latents by its own `loss`.
        reads_patches: whether a latent may be several tokens.
    """

    distribution: ClassVar[bool] = False
    Config: type[PredictorConfig] = PredictorConfig
    config: Any  # of its own Config
    context: int | None = 1
    state_size: int = 0
    static: int = 0
    events: EventLayout | None = None
    reads_patches: ClassVar[bool] = False

    def __init__(self, config: PredictorConfig, width: int, action_size: int) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.action_size = action_size
        self.scale_actions = standardize(action_size, config.normalize_actions)

    @abstractmethod
    def parallel(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S A"], states: Float[Tensor, "B S X"] | None = None
    ) -> Float[Tensor, "B S N D"]:
        """Teacher-forced: row s is the prediction of latent s+1 from the latents and actions up to s."""

    @abstractmethod
    def initial_state(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> State:
        """The state after S latents and the S-1 actions between them. Raises ValueError for states it does not read."""

    @abstractmethod
    def step(
        self,
        state: State,
        action: Float[Tensor, "B A"],
        noise: Float[Tensor, "B N D"] | None = None,
        temperature: float = 1.0,
    ) -> tuple[State, NextLatent]:
        """One step ahead; `state` is unchanged."""

    def loss(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S-1 A"], generator: torch.Generator
    ) -> PredictionLoss:
        """What training minimizes: here the mean squared error of the teacher-forced pass.

        A predictor with `distribution` has a loss of its own, and draws from `generator` alone.
        """
        return self.squared_error(self.parallel(z[:, :-1], actions), z)

    def squared_error(self, predicted: Float[Tensor, "B Q N D"], z: Float[Tensor, "B S N D"]) -> PredictionLoss:
        """Of predictions of latents 1 … S-1, without the numbers that never change."""
        moving = self.width - self.static
        error = F.mse_loss(predicted[..., :moving], z[:, 1:, :, :moving])
        return PredictionLoss({"prediction": error}, predicted)

    def read_events(self, events: EventLayout) -> None:
        """Take some of the `action_size` numbers for events; from now on, plain actions are those without an event.

        Raises:
            ValueError: these are not as many numbers.
        """
        if events.width != self.action_size:
            raise ValueError(f"expected actions {self.action_size} wide, found {events.width} with events")
        self.events = self.scale_actions.events = events

    def plain_actions(self, actions: Float[Tensor, "*B A"]) -> Float[Tensor, "*B P"]:
        """The actions without events."""
        return actions if self.events is None else self.events.plain(actions)

    def _check_actions(self, actions: Tensor) -> None:
        plain = self.action_size if self.events is None else self.events.plain_width
        if actions.shape[-1] not in (self.action_size, plain):
            raise ValueError(
                f"the predictor takes actions {self.action_size} wide (all raw actions of one latent step side by "
                f"side), found {actions.shape[-1]}"
            )


class MemorylessPredictor(Predictor):
    """A predictor of vector latents [B, 1, D] without memory: `predict` maps latent and action to the next latent."""

    @abstractmethod
    def predict(self, z: Float[Tensor, "B 1 D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B 1 D"]:
        """The next latent, for an action of the width used in training."""

    def parallel(
        self, z: Float[Tensor, "B S 1 D"], actions: Float[Tensor, "B S A"], states: Float[Tensor, "B S X"] | None = None
    ) -> Float[Tensor, "B S 1 D"]:
        """Teacher-forced: row s is the prediction of latent s+1 from latent s."""
        check_no_states(self, states)
        return self(z.flatten(0, 1), actions.flatten(0, 1)).unflatten(0, z.shape[:2])

    def initial_state(
        self,
        z: Float[Tensor, "B S 1 D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> LatentState:
        """The last latent; earlier ones are not used. Raises ValueError if there are states."""
        check_no_states(self, states)
        return LatentState(z[:, -1])

    def step(
        self, state: State, action: Float[Tensor, "B A"], noise: Tensor | None = None, temperature: float = 1.0
    ) -> tuple[LatentState, Deterministic]:
        assert isinstance(state, LatentState)
        z = self(state.z, action)
        return LatentState(z), Deterministic(z)

    def forward(self, z: Float[Tensor, "B 1 D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B 1 D"]:
        """The next latent. Raises ValueError if the action has another width than in training."""
        self._check_actions(action)
        return self.predict(z, action)


def check_no_states(predictor: Predictor, states: Tensor | None) -> None:
    """Raises ValueError for states given to a predictor that reads none."""
    if states is not None:
        raise ValueError(f"{type(predictor).__name__} reads no states, found {states.shape[-1]} at every step")


def token_grid(encoder: Any) -> tuple[int, int]:
    """Rows and columns of the tokens of a square image; one row if tokens have no position."""
    side = round(encoder.tokens**0.5)
    return (side, side) if side * side == encoder.tokens else (1, encoder.tokens)
