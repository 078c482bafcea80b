"""An LSTM that predicts a mixture of Gaussians for every number of the next latent: M of World Models (1803.10122).

    z_t, a_t ──→ LSTM ──→ h_t ──→ for each of the N*D numbers: K logits, means and log deviations
                                  p(z_{t+1}) = Π_i Σ_k w_ik Normal(mean_ik, std_ik)      numbers are independent
    loss      = -log p(z_{t+1}) / (N*D), every step from true latents
    sampling  at temperature T: logits / T, std * √T                 T → 0: the mean of the most likely Gaussian
    planning  the mean of the mixture, or the mean of its most likely Gaussian (`point`)

The tokens of a latent are one vector of N*D numbers; the output layer holds 3*K*N*D*(hidden + 1) weights, so this is
for vectors and small grids. The density rewards latents that collapse: its targets are constant, and what keeps an
encoder from collapsing is up to the method. Deviations have a floor (`min_std`), so that the loss has a lower bound.

With `hidden` 256, latents of 32 numbers and actions of 3 it has the 422,368 parameters of the paper's CarRacing model.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from jepa.config.fields import Count
from jepa.predictors.base import PointEstimate, PredictionLoss, Predictor, PredictorConfig, TensorState, check_no_states
from jepa.world_model import State

LOG_SQRT_2PI = 0.9189385332046727
TAIL = 1e-9  # probability that a sample never leaves on either side of a Gaussian: 6 deviations


@dataclass(frozen=True)
class MixtureLatent:
    """A mixture of K Gaussians for every number of the next latent, all independent, as a NextLatent.

    Attributes:
        point: what `mean` gives: the mean of the mixture, or "mode": the mean of its most likely Gaussian.
    """

    logits: Float[Tensor, "*B N D K"]
    means: Float[Tensor, "*B N D K"]
    std: Float[Tensor, "*B N D K"]
    point: PointEstimate = "mean"

    def mean(self) -> Float[Tensor, "*B N D"]:
        if self.point == "mean":
            return (self.logits.softmax(-1) * self.means).sum(-1)
        return _pick(self.means, self.logits.argmax(-1))

    def sample(self, noise: Float[Tensor, "*B N D"] | None = None, temperature: float = 1.0) -> Float[Tensor, "*B N D"]:
        """What standard normal `noise` draws; without noise, `mean`.

        One normal number draws both the Gaussian and the place in it: as a uniform number it falls into the share of
        one Gaussian, and where in this share is uniform again. Gradients reach the means and deviations.
        """
        if noise is None:
            return self.mean()
        shares = (self.logits.detach().double() / temperature).softmax(-1)
        ends = shares.cumsum(-1)
        uniform = torch.special.ndtr(noise.detach().double()).clamp(TAIL, 1 - TAIL)
        chosen = (uniform[..., None] >= ends[..., :-1]).sum(-1)
        share = _pick(shares, chosen)
        within = (uniform - _pick(ends, chosen) + share) / share.clamp_min(TAIL)
        normal = torch.special.ndtri(within.clamp(TAIL, 1 - TAIL)).to(self.means)
        return _pick(self.means, chosen) + temperature**0.5 * _pick(self.std, chosen) * normal

    def log_prob(self, z: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B"]:
        """The density of latents, in nats, summed over their numbers."""
        apart = (z[..., None] - self.means) / self.std
        gaussians = -0.5 * apart.square() - self.std.log() - LOG_SQRT_2PI
        return (self.logits.log_softmax(-1) + gaussians).logsumexp(-1).sum((-1, -2))


@dataclass(frozen=True)
class LSTMState(TensorState):
    """The present latent, and the LSTM's hidden and cell state before it."""

    z: Float[Tensor, "B N D"]
    hidden: Float[Tensor, "B H"]
    cell: Float[Tensor, "B H"]


class MDNRNN(Predictor):
    """The Dynamics of `jepa.world_model` by an LSTM with a mixture density output.

    Args:
        width, action_size: as in `Predictor`.
        grid: rows and columns of the tokens of a latent; all are read and predicted as one vector.
    """

    class Config(PredictorConfig):
        """LSTM and mixture density network (World Models' M)."""

        kind: Literal["mdn_rnn"] = "mdn_rnn"
        hidden: Count = Field(default=256, description="of the LSTM; the paper's Doom model has 512")
        gaussians: Count = Field(default=5, description="Gaussians in the mixture of each number of a latent")
        min_std: float = Field(default=0.01, gt=0, description="added to every deviation")
        point: PointEstimate = Field(
            default="mean", description="what planners see: the mixture's mean, or the mean of its likeliest Gaussian"
        )

    distribution: ClassVar[bool] = True
    reads_patches: ClassVar[bool] = True
    context = None

    def __init__(self, config: Config, width: int, action_size: int, grid: tuple[int, int] = (1, 1)) -> None:
        super().__init__(config, width, action_size)
        self.size = grid[0] * grid[1] * width
        # A constant 1 is the last input: its weights are the one bias of each gate that the paper counts.
        self.lstm = nn.LSTM(self.size + action_size + 1, config.hidden, bias=False, batch_first=True)
        self.output = nn.Linear(config.hidden, 3 * config.gaussians * self.size)

    def parallel(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S A"], states: Float[Tensor, "B S X"] | None = None
    ) -> Float[Tensor, "B S N D"]:
        check_no_states(self, states)
        return self.distributions(z, actions).mean()

    def distributions(self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S A"]) -> MixtureLatent:
        """Teacher-forced: row s is the distribution of latent s+1 from latents and actions up to s."""
        hidden, _ = self.lstm(self._inputs(z, actions))
        return self._mixture(hidden, z.shape[2:])

    def loss(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S-1 A"], generator: torch.Generator
    ) -> PredictionLoss:
        """The negative log density of each next latent, in nats a number; no gradient reaches the targets."""
        mixture = self.distributions(z[:, :-1], actions)
        nll = -mixture.log_prob(z[:, 1:].detach()).mean() / self.size
        return PredictionLoss({"prediction": nll}, mixture.mean())

    def initial_state(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> LSTMState:
        """After S latents and the S-1 actions between them. Raises ValueError if there are states."""
        check_no_states(self, states)
        hidden = cell = z.new_zeros(len(z), self.lstm.hidden_size)
        if z.shape[1] > 1:
            _, (hidden, cell) = self.lstm(self._inputs(z[:, :-1], actions))
            hidden, cell = hidden[0], cell[0]
        return LSTMState(z[:, -1], hidden, cell)

    def step(
        self,
        state: State,
        action: Float[Tensor, "B A"],
        noise: Float[Tensor, "B N D"] | None = None,
        temperature: float = 1.0,
    ) -> tuple[LSTMState, MixtureLatent]:
        assert isinstance(state, LSTMState)
        inputs = self._inputs(state.z[:, None], action[:, None])
        output, (hidden, cell) = self.lstm(inputs, (state.hidden[None].contiguous(), state.cell[None].contiguous()))
        mixture = self._mixture(output[:, 0], state.z.shape[1:])
        return LSTMState(mixture.sample(noise, temperature), hidden[0], cell[0]), mixture

    def _inputs(self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S A"]) -> Float[Tensor, "B S I"]:
        self._check_actions(actions)
        return torch.cat((z.flatten(2), self.scale_actions(actions), z.new_ones(*z.shape[:2], 1)), -1)

    def _mixture(self, hidden: Float[Tensor, "*B H"], latent: torch.Size) -> MixtureLatent:
        numbers = self.output(hidden).float().unflatten(-1, (*latent, 3, self.config.gaussians))
        logits, means, log_std = numbers.unbind(-2)
        return MixtureLatent(logits, means, log_std.exp() + self.config.min_std, self.config.point)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(-1, index[..., None])[..., 0]
