"""A predictor with a latent variable: LeCun's s' = Pred(h, s, a, z), with z for what the past does not determine.

    memory     h_t = GRU(h_{t-1}; s_{t-1}, a_{t-1})               zeros before the first step
    prior      z_t ~ p(z | h_t, s_t, a_t)                         a Gaussian of `variables` numbers
    posterior  z_t ~ q(z | h_t, s_t, a_t, s_{t+1})                in training only
    next       s_{t+1} = s_t + Pred(h_t, s_t, a_t, z_t)

    loss  = |s_{t+1} - Pred(…, z ~ q)|² + rate_weight * max(free_nats, KL[q || p])      all divided by N*D
            squares and KL summed over their numbers; no gradient reaches the targets

The KL limits the information, in nats, that z may carry about the next latent: without a limit z would copy it, and the
predictor would learn nothing. In a deterministic world z carries nothing; where the same action can have several
outcomes, each value of z is one of them. With noise, z is sampled from the prior, at temperature T with std * √T.
Without noise z is the prior's mean. A planner can also search z: of `futures` samples of it for every plan, the best or
the worst counts (jepa/planners/futures.py).

Source: Y. LeCun, A Path Towards Autonomous Machine Intelligence (2022), sections 4.2-4.8. No sizes are published.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from jepa.config.fields import Count, NonNegative
from jepa.predictors.base import PredictionLoss, Predictor, PredictorConfig, SampledLatent, TensorState, check_no_states
from jepa.predictors.networks.block_gru import mlp
from jepa.ranks import rank_part
from jepa.world_model import State

LOG_STD = 4.0  # the bound on log standard deviations of prior and posterior, on either side


@dataclass(frozen=True)
class MemoryState(TensorState):
    """The current latent, and the memory of what came before it."""

    z: Float[Tensor, "B N D"]
    h: Float[Tensor, "B M"]


@dataclass(frozen=True)
class Gaussian:
    """Independent Gaussians."""

    mean: Float[Tensor, "*B U"]
    std: Float[Tensor, "*B U"]

    def sample(self, noise: Float[Tensor, "*B U"], temperature: float = 1.0) -> Float[Tensor, "*B U"]:
        return self.mean + temperature**0.5 * self.std * noise

    def divergence(self, other: "Gaussian") -> Float[Tensor, "*B"]:
        """KL[self || other] in nats, summed over the variables."""
        ratio = (self.std / other.std).square()
        apart = ((self.mean - other.mean) / other.std).square()
        return 0.5 * (ratio + apart - 1 - ratio.log()).sum(-1)


@dataclass(eq=False)
class LatentVariableLatent(SampledLatent):
    """The next latent for a latent variable that is still to be sampled; without noise it is the prior's mean."""

    model: "LatentVariablePredictor"
    seen: Float[Tensor, "B I"]
    prior: Gaussian
    z: Float[Tensor, "B N D"]

    def draw(self, noise: Float[Tensor, "B N D"] | None, temperature: float) -> Float[Tensor, "B N D"]:
        variable = self.prior.mean
        if noise is not None:
            variable = self.prior.sample(noise.flatten(1)[:, : variable.shape[-1]], temperature)
        return self.model.next_latent(self.seen, variable, self.z)


class LatentVariablePredictor(Predictor):
    """The Dynamics of `jepa.world_model` with a latent variable.

    Args:
        width, action_size: as in `Predictor`.
        grid: rows and columns of the tokens of a latent; all are read and predicted as one vector.

    Raises:
        ValueError: there are more latent variables than numbers in a latent, whose noise samples them.
    """

    class Config(PredictorConfig):
        """Memory, latent variable and MLP (LeCun's architecture)."""

        kind: Literal["latent_variable"] = "latent_variable"
        variables: Count = Field(default=8, description="numbers of the latent variable; at most those of a latent")
        memory: Count = Field(default=128, description="width of the GRU that remembers earlier steps")
        hidden: Count = Field(default=256, description="width of the layers")
        layers: Count = Field(default=2, description="hidden layers of the prediction; prior and posterior have one")
        rate_weight: NonNegative = Field(default=0.1, description="weight of the KL that limits the latent variable")
        free_nats: NonNegative = Field(default=0.0, description="a KL below this is not reduced")

    distribution: ClassVar[bool] = True
    reads_patches: ClassVar[bool] = True
    context = None

    def __init__(self, config: Config, width: int, action_size: int, grid: tuple[int, int] = (1, 1)) -> None:
        super().__init__(config, width, action_size)
        size = grid[0] * grid[1] * width
        if config.variables > size:
            raise ValueError(
                f"predictor.variables: expected at most {size}, the numbers of a latent, found {config.variables}"
            )
        seen = config.memory + size + action_size
        self.memory = nn.GRU(size + action_size, config.memory, batch_first=True)
        self.prior_net = mlp(seen, config.hidden, 1, 2 * config.variables)
        self.posterior_net = mlp(seen + size, config.hidden, 1, 2 * config.variables)
        self.prediction = mlp(seen + config.variables, config.hidden, config.layers, size)

    def loss(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S-1 A"], generator: torch.Generator
    ) -> PredictionLoss:
        """Squared error for z from the posterior, and the KL that limits it."""
        seen = self._seen(z[:, :-1], actions)
        target = z[:, 1:].detach()
        prior = self.prior(seen)
        posterior = _gaussian(self.posterior_net(torch.cat((seen, target.flatten(2)), -1)))
        rows, *inner = posterior.mean.shape
        noise = rank_part(lambda n: torch.randn(n, *inner, generator=generator), rows, device=z.device).to(z.dtype)
        inferred = self.next_latent(seen, posterior.sample(noise), z[:, :-1])
        moving = self.width - self.static
        error = (inferred - target)[..., :moving].float().square().sum((-1, -2)).mean()
        rate = posterior.divergence(prior).float().mean()
        limited = rate.clamp_min(self.config.free_nats)
        size = target[0, 0, :, :moving].numel()
        total = (error + self.config.rate_weight * limited) / size
        terms = {"prediction": total, "reconstruction": error / size, "rate": rate}
        with torch.no_grad():
            predicted = self.next_latent(seen, prior.mean, z[:, :-1])
        return PredictionLoss(terms, predicted)

    def parallel(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S A"], states: Float[Tensor, "B S X"] | None = None
    ) -> Float[Tensor, "B S N D"]:
        check_no_states(self, states)
        seen = self._seen(z, actions)
        return self.next_latent(seen, self.prior(seen).mean, z)

    def initial_state(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> MemoryState:
        """After S latents and the S-1 actions between them. Raises ValueError if there are states."""
        check_no_states(self, states)
        h = z.new_zeros(len(z), self.config.memory)
        if z.shape[1] > 1:
            h = self.memory(self._step_input(z[:, :-1], actions))[1][0]
        return MemoryState(z[:, -1], h)

    def step(
        self,
        state: State,
        action: Float[Tensor, "B A"],
        noise: Float[Tensor, "B N D"] | None = None,
        temperature: float = 1.0,
    ) -> tuple[MemoryState, LatentVariableLatent]:
        assert isinstance(state, MemoryState)
        entered = self._step_input(state.z[:, None], action[:, None])
        seen = torch.cat((state.h, entered[:, 0]), -1)
        next_latent = LatentVariableLatent(self, seen, self.prior(seen), state.z)
        _, h = self.memory(entered, state.h[None].contiguous())
        return MemoryState(next_latent.sample(noise, temperature), h[0]), next_latent

    def prior(self, seen: Float[Tensor, "*B I"]) -> Gaussian:
        """What z may be before the outcome is known."""
        return _gaussian(self.prior_net(seen))

    def next_latent(
        self, seen: Float[Tensor, "*B I"], variable: Float[Tensor, "*B U"], z: Float[Tensor, "*B N D"]
    ) -> Float[Tensor, "*B N D"]:
        """The outcome that a value of the latent variable selects."""
        return z + self.prediction(torch.cat((seen, variable), -1)).view_as(z)

    def _seen(self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S A"]) -> Float[Tensor, "B S I"]:
        """Memory, latent and action of every step."""
        entered = self._step_input(z, actions)
        after = self.memory(entered[:, :-1])[0] if z.shape[1] > 1 else z.new_zeros(len(z), 0, self.config.memory)
        h = torch.cat((z.new_zeros(len(z), 1, self.config.memory), after), 1)
        return torch.cat((h, entered), -1)

    def _step_input(self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S A"]) -> Float[Tensor, "B S J"]:
        self._check_actions(actions)
        return torch.cat((z.flatten(2), self.scale_actions(actions)), -1)


def _gaussian(numbers: Float[Tensor, "*B V"]) -> Gaussian:
    mean, log_std = numbers.float().chunk(2, -1)
    return Gaussian(mean, (LOG_STD * (log_std / LOG_STD).tanh()).exp())
