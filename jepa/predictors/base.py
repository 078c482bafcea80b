"""Base classes of predictors: `Predictor`, and `MemorylessPredictor`, which reads only the current latent."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from jepa.config import Component
from jepa.normalize import standardize
from jepa.world_model import Deterministic, NextLatent, State


class PredictorConfig(Component):
    """Settings of an action-conditioned predictor."""

    normalize_actions: bool = Field(
        default=True, description="standardize raw actions by their mean and standard deviation in the training data"
    )


@dataclass(frozen=True)
class LatentState:
    """The state of a Markov model: the latent itself, [B, N, D]."""

    z: Float[Tensor, "B N D"]

    def repeat(self, k: int) -> "LatentState":
        return LatentState(self.z.repeat_interleave(k, 0))

    def gather(self, index: Int[Tensor, " M"]) -> "LatentState":
        return LatentState(self.z[index])

    def detach(self) -> "LatentState":
        return LatentState(self.z.detach())

    def nbytes(self) -> int:
        return self.z.nbytes


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
    """

    Config: type[PredictorConfig] = PredictorConfig
    config: Any  # of its own Config
    context: int | None = 1
    state_size: int = 0
    static: int = 0

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
        self, state: State, action: Float[Tensor, "B A"], noise: Float[Tensor, "B N D"] | None = None
    ) -> tuple[State, NextLatent]:
        """One step ahead; `state` is unchanged."""

    def _check_actions(self, actions: Tensor) -> None:
        if actions.shape[-1] != self.action_size:
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
        self._check_no_states(states)
        return self(z.flatten(0, 1), actions.flatten(0, 1)).unflatten(0, z.shape[:2])

    def initial_state(
        self,
        z: Float[Tensor, "B S 1 D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> LatentState:
        """The last latent; earlier ones are not used. Raises ValueError if there are states."""
        self._check_no_states(states)
        return LatentState(z[:, -1])

    def step(
        self, state: State, action: Float[Tensor, "B A"], noise: Tensor | None = None
    ) -> tuple[LatentState, Deterministic]:
        assert isinstance(state, LatentState)
        z = self(state.z, action)
        return LatentState(z), Deterministic(z)

    def forward(self, z: Float[Tensor, "B 1 D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B 1 D"]:
        """The next latent. Raises ValueError if the action has another width than in training."""
        self._check_actions(action)
        return self.predict(z, action)

    def _check_no_states(self, states: Tensor | None) -> None:
        if states is not None:
            raise ValueError(f"{type(self).__name__} reads no states, found {states.shape[-1]} at every step")


def token_grid(encoder: Any) -> tuple[int, int]:
    """Rows and columns of the tokens of a square image; one row if tokens have no position."""
    side = round(encoder.tokens**0.5)
    return (side, side) if side * side == encoder.tokens else (1, encoder.tokens)
