"""Controllers that read the memory of an MDN-RNN beside the latent: [z, h, c], as in World Models (1803.10122).

recorded   z0 ─a0─> z1 ─a1─> z2 …            `along`: the LSTM reads what was recorded
dream      [z, h, c] ─controller─> a ─LSTM─> [z' ~ mixture, h', c'] ─> …
acting     image ─encoder─> z, h and c from (z, a) before ─controller─> a         `observed`

h and c know of the latents and actions before z; they are 0 at the beginning of an episode.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepa.predictors.base import check_no_states
from jepa.predictors.mdn_rnn import MDNRNN, LSTMState
from jepa.world_model import Deterministic, State

Belief = Float[Tensor, "B 1 F"]


class Memory:
    """Dynamics whose latents are [z, h, c], F = N*D + 2 * hidden numbers; noise is read by its first N*D.

    What is drawn is drawn in `step`, so the next latent that it returns is the only one.

    Args:
        dynamics: the MDN-RNN of latents z.

    Raises:
        ValueError: the dynamics are none.
    """

    context: int | None = None
    state_size = 0

    def __init__(self, dynamics: object, tokens: int, width: int) -> None:
        if not isinstance(dynamics, MDNRNN):
            raise ValueError(
                "memory: the controller reads the hidden state of an LSTM, expected dynamics of kind mdn_rnn"
            )
        self.dynamics = dynamics
        self.tokens, self.width = tokens, width

    def initial_state(
        self,
        z: Float[Tensor, "B S 1 F"],
        actions: Float[Tensor, "B S-1 A"],
        states: Tensor | None = None,
    ) -> LSTMState:
        """The last latent. Raises ValueError if there are states."""
        check_no_states(self.dynamics, states)
        return self._state(z[:, -1])

    def step(
        self, state: State, action: Float[Tensor, "B A"], noise: Belief | None = None, temperature: float = 1.0
    ) -> tuple[LSTMState, Deterministic]:
        assert isinstance(state, LSTMState)
        size = self.tokens * self.width
        if noise is not None:
            noise = noise[:, 0, :size].unflatten(-1, (self.tokens, self.width))
        state, _ = self.dynamics.step(state, action, noise, temperature)
        return state, Deterministic(_belief(state))

    def observed(self, before: Belief | None, action: Float[Tensor, "B A"] | None, z: Float[Tensor, "B N D"]) -> Belief:
        """[z, h, c] when z was seen after `action`; `before` is None at the beginning of an episode."""
        if before is None or action is None:
            return _belief(self.dynamics.initial_state(z[:, None], z.new_zeros(len(z), 0, self.dynamics.action_size)))
        state, _ = self.dynamics.step(self._state(before), action)
        return _belief(LSTMState(z, state.hidden, state.cell))

    def along(
        self, z: Float[Tensor, "M N D"], actions: Float[Tensor, "M A"], episodes: Int[Tensor, " M"]
    ) -> Float[Tensor, "M 1 F"]:
        """[z, h, c] at each of M moments of recorded episodes, one after the other.

        Args:
            actions: that led to each moment; not read at the first of an episode.
        """
        count = episodes.unique_consecutive(return_counts=True)[1]
        first = count.cumsum(0) - count
        beliefs = z.new_zeros(len(z), 1, self.tokens * self.width + 2 * self.dynamics.config.hidden)
        beliefs[first] = self.observed(None, None, z[first])
        for t in range(1, int(count.max())):
            rows = first[count > t] + t
            beliefs[rows] = self.observed(beliefs[rows - 1], actions[rows], z[rows])
        return beliefs

    def _state(self, belief: Belief) -> LSTMState:
        hidden = self.dynamics.config.hidden
        z, h, c = belief[:, 0].split((belief.shape[-1] - 2 * hidden, hidden, hidden), -1)
        return LSTMState(z.unflatten(-1, (self.tokens, self.width)), h, c)


def _belief(state: LSTMState) -> Belief:
    return torch.cat((state.z.flatten(1), state.hidden, state.cell), -1)[:, None]
