"""DreamerV3's recurrent state-space model, as dynamics of any latent space (arXiv 2301.04104).

    h_{t+1} = BlockGRU(h_t, s_t, a_t)                    deterministic, R numbers; networks/block_gru.py
    prior      s_{t+1} ~ p(s | h_{t+1})                  G one-hot variables of C classes, 1 % of them uniform
    posterior  s_{t+1} ~ q(s | h_{t+1}, z_{t+1})         the same, given the latent as well
    emission   z'      = e(h, s)                         into the latent space that it shares with all other predictors

    z0 ──q──→ s0 ──→ h1 ──q(z1)──→ s1 ──→ h2 ──p──→ s2 ──→ h3 ──p──→ s3        what was seen, then what is imagined
                a0                   a1        │      a2        │
                                               └─e→ z'2         └─e→ z'3

    loss  = |e(h_t, s_t) - z_t|²                         summed over the numbers, s from the posterior
          + dynamics_weight * max(free_nats, KL[sg q || p])          moves the prior to the posterior
          + representation_weight * max(free_nats, KL[q || sg p])    moves the posterior to the prior
            KL summed over the G variables, cut for each clip and step; all divided by N*D, the numbers of a latent

h starts from the core's step out of zeros, as it does after a reset. Gradients pass a draw straight through. A draw
takes uniform numbers: from the generator while training, else made from the noise of the shared latent (below).
Planning takes the most likely class of each variable (`point: mode`), or the probabilities in place of a draw ("mean").

Raw actions are divided by max(1, |a|), as published; standardized ones, which are larger than 1 by design, are not.
Published sizes (recurrent_size, hidden, classes), 32 variables each: 12M 2048, 256, 16 · 50M 4096, 512, 32 · 200M
8192, 1024, 64. The tokens of a latent are read and emitted as one vector.

Shapes: B clips · S latent steps · N tokens · D width · R recurrent · G variables · C classes.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from jepa.config.fields import Count
from jepa.predictors.base import (
    PointEstimate,
    PredictionLoss,
    Predictor,
    PredictorConfig,
    SampledLatent,
    TensorState,
    check_no_states,
)
from jepa.predictors.networks.block_gru import BlockGRU, mlp
from jepa.ranks import rank_part
from jepa.world_model import State

UNIMIX = 0.01  # DreamerV3
PRIOR_LAYERS = 2


@dataclass(frozen=True)
class RecurrentState(TensorState):
    """What the model carries: h, and s as G one-hot variables."""

    h: Float[Tensor, "B R"]
    s: Float[Tensor, "B G C"]


@dataclass(frozen=True)
class Observed:
    """What a pass over a clip made of it: h and s at every step, and the logits of posterior and prior."""

    h: Float[Tensor, "B S R"]
    s: Float[Tensor, "B S G C"]
    posterior: Float[Tensor, "B S G C"]
    prior: Float[Tensor, "B S G C"]


@dataclass(eq=False)
class EmittedLatent(SampledLatent):
    """The next latent as the emission of h and a draw from the prior."""

    model: "RSSM"
    h: Float[Tensor, "B R"]
    prior: Float[Tensor, "B G C"]

    def stochastic(self, noise: Float[Tensor, "B N D"] | None, temperature: float) -> Float[Tensor, "B G C"]:
        """s as the noise draws it; without noise the point that planners see."""
        if noise is None:
            return point(self.prior, self.model.config.point)
        logits = self.prior / temperature
        return draw(logits, uniforms(noise.flatten(1), logits.shape[-2]))

    def draw(self, noise: Float[Tensor, "B N D"] | None, temperature: float) -> Float[Tensor, "B N D"]:
        return self.model.emit(self.h, self.stochastic(noise, temperature))


class RSSM(Predictor):
    """The Dynamics of `jepa.world_model` by a recurrent state-space model.

    Args:
        width, action_size: as in `Predictor`.
        grid: rows and columns of the tokens of a latent; all are read and emitted as one vector.
    """

    class Config(PredictorConfig):
        """DreamerV3's recurrent state-space model, with an emission into the latent space."""

        kind: Literal["rssm"] = "rssm"
        recurrent_size: Count = Field(default=512, description="numbers of the deterministic state")
        hidden: Count = Field(default=256, description="width of all layers around it")
        blocks: Count = Field(default=8, description="of the recurrent core; recurrent_size is a multiple of it")
        categoricals: Count = Field(default=32, description="one-hot variables of the stochastic state")
        classes: int = Field(default=32, ge=2, description="of each of them")
        dynamics_weight: float = Field(default=1.0, ge=0, description="of the KL that trains the prior")
        representation_weight: float = Field(default=0.1, ge=0, description="of the KL that trains the posterior")
        free_nats: float = Field(default=1.0, ge=0, description="a KL below this is not reduced")
        point: PointEstimate = Field(
            default="mode",
            description="what planners see: each variable's most likely class, or its probabilities in place of a draw",
        )

    distribution: ClassVar[bool] = True
    reads_patches: ClassVar[bool] = True
    context: int | None = None

    def __init__(self, config: Config, width: int, action_size: int, grid: tuple[int, int] = (1, 1)) -> None:
        super().__init__(config, width, action_size)
        if config.recurrent_size % config.blocks:
            raise ValueError(
                f"recurrent_size: expected a multiple of the {config.blocks} blocks, found {config.recurrent_size}"
            )
        self.tokens = grid[0] * grid[1]
        size = self.tokens * width
        recurrent = config.recurrent_size
        hidden = config.hidden
        stochastic = config.categoricals * config.classes
        self.core = BlockGRU(recurrent, stochastic, action_size, hidden, config.blocks)
        self.prior_net = mlp(recurrent, hidden, PRIOR_LAYERS, stochastic)
        self.posterior_net = mlp(recurrent + size, hidden, 1, stochastic)
        self.emission = mlp(recurrent + stochastic, hidden, 1, size)

    def advance(
        self, h: Float[Tensor, "*B R"], s: Float[Tensor, "*B G C"], action: Float[Tensor, "*B A"]
    ) -> Float[Tensor, "*B R"]:
        """The next deterministic state; the action as `embedded_action` gives it."""
        return self.core(h, s.flatten(-2), action)

    def prior(self, h: Float[Tensor, "*B R"]) -> Float[Tensor, "*B G C"]:
        """Logits of s from the past alone."""
        return self.prior_net(h).unflatten(-1, (self.config.categoricals, -1))

    def posterior(self, h: Float[Tensor, "*B R"], z: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B G C"]:
        """Logits of s from the past and the latent."""
        return self.posterior_net(torch.cat((h, z.flatten(-2)), -1)).unflatten(-1, (self.config.categoricals, -1))

    def emit(self, h: Float[Tensor, "*B R"], s: Float[Tensor, "*B G C"]) -> Float[Tensor, "*B N D"]:
        """The shared latent of a private state."""
        return self.emission(self.features(h, s)).unflatten(-1, (self.tokens, self.width))

    @property
    def feature_size(self) -> int:
        """F, numbers of a private state."""
        return self.config.recurrent_size + self.config.categoricals * self.config.classes

    def features(self, h: Float[Tensor, "*B R"], s: Float[Tensor, "*B G C"]) -> Float[Tensor, "*B F"]:
        """A private state as one vector, which decoders, heads and controllers read."""
        return torch.cat((h, s.flatten(-2)), -1)

    def observe(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        generator: torch.Generator | None = None,
        first: Bool[Tensor, "B S"] | None = None,
    ) -> Observed:
        """The posterior along a clip.

        Args:
            generator: draws s; None: its `point` takes the place of a draw.
            first: where an episode begins within the clip: nothing from before is left there, the action included.
        """
        batch, steps = z.shape[:2]
        h = z.new_zeros(batch, self.config.recurrent_size)
        s = z.new_zeros(batch, self.config.categoricals, self.config.classes)
        action = z.new_zeros(batch, self.action_size)
        taken = self.embedded_action(actions)
        numbers = None
        if generator is not None:
            size = steps, self.config.categoricals
            numbers = rank_part(lambda n: torch.rand(n, *size, generator=generator), batch, device=z.device)
        rows = list[tuple[Tensor, Tensor, Tensor]]()
        for t in range(steps):
            if t:
                action = taken[:, t - 1]
            if first is not None:
                kept = ~first[:, t, None]
                h = h * kept
                s = s * kept[..., None]
                action = action * kept
            h = self.advance(h, s, action)
            logits = self.posterior(h, z[:, t])
            s = point(logits, self.config.point) if numbers is None else draw(logits, numbers[:, t])
            rows.append((h, s, logits))
        h, s, logits = (torch.stack(row, 1) for row in zip(*rows, strict=True))
        return Observed(h, s, logits, self.prior(h))

    def loss(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S-1 A"], generator: torch.Generator
    ) -> PredictionLoss:
        """Emission error and both KL terms; no gradient reaches the target of the emission."""
        c = self.config
        observed = self.observe(z, actions, generator)
        apart = (self.emit(observed.h, observed.s).float() - z.detach().float()).square().sum((-1, -2)).mean()
        dynamics, representation = kl_terms(observed.posterior, observed.prior, c.free_nats)
        total = apart + c.dynamics_weight * dynamics + c.representation_weight * representation
        terms = {
            "prediction": total / z.shape[2:].numel(),
            "emission": apart / z.shape[2:].numel(),
            "dynamics_kl": dynamics,
            "representation_kl": representation,
        }
        with torch.no_grad():
            predicted = self.emit(observed.h[:, 1:], point(observed.prior[:, 1:], c.point))
        return PredictionLoss(terms, predicted)

    def parallel(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S A"], states: Float[Tensor, "B S X"] | None = None
    ) -> Float[Tensor, "B S N D"]:
        check_no_states(self, states)
        observed = self.observe(z, actions[:, :-1])
        h = self.advance(observed.h, observed.s, self.embedded_action(actions))
        return self.emit(h, point(self.prior(h), self.config.point))

    def initial_state(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> RecurrentState:
        """After S latents and the S-1 actions between them. Raises ValueError if there are states."""
        check_no_states(self, states)
        observed = self.observe(z, actions)
        return RecurrentState(observed.h[:, -1], observed.s[:, -1])

    def step(
        self,
        state: State,
        action: Float[Tensor, "B A"],
        noise: Float[Tensor, "B N D"] | None = None,
        temperature: float = 1.0,
    ) -> tuple[RecurrentState, EmittedLatent]:
        assert isinstance(state, RecurrentState)
        h = self.advance(state.h, state.s, self.embedded_action(action))
        next_latent = EmittedLatent(self, h, self.prior(h))
        return RecurrentState(h, next_latent.stochastic(noise, temperature)), next_latent

    def embedded_action(self, actions: Float[Tensor, "*B A"]) -> Float[Tensor, "*B E"]:
        """Actions as the core takes them: standardized, or else within -1..1 as published."""
        self._check_actions(actions)
        actions = self.scale_actions(actions)
        if self.config.normalize_actions:
            return actions
        return actions / actions.detach().abs().clamp_min(1)


def probabilities(logits: Float[Tensor, "*B C"], unimix: float = UNIMIX) -> Float[Tensor, "*B C"]:
    """Softmax in fp32 with a share of the uniform distribution: none is below unimix / C."""
    return (1 - unimix) * logits.float().softmax(-1) + unimix / logits.shape[-1]


def draw(logits: Float[Tensor, "*B C"], uniform: Float[Tensor, "*B"]) -> Float[Tensor, "*B C"]:
    """The class that a uniform number draws, one-hot; the gradient is that of the probabilities."""
    shares = probabilities(logits)
    chosen = (uniform[..., None] >= shares.detach().cumsum(-1)[..., :-1]).sum(-1)
    return _one_hot(chosen, logits.shape[-1]) + (shares - shares.detach())


def point(logits: Float[Tensor, "*B C"], kind: PointEstimate) -> Float[Tensor, "*B C"]:
    """In place of a draw: the likeliest class, one-hot with the gradient of the probabilities, or these themselves."""
    shares = probabilities(logits)
    if kind == "mean":
        return shares
    return _one_hot(shares.argmax(-1), logits.shape[-1]) + (shares - shares.detach())


def _one_hot(chosen: Int[Tensor, "*B"], classes: int) -> Bool[Tensor, "*B C"]:
    """Without the look at the numbers that torch's own takes."""
    return chosen[..., None] == torch.arange(classes, device=chosen.device)


def kl_terms(
    posterior: Float[Tensor, "*B G C"], prior: Float[Tensor, "*B G C"], free_nats: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """KL[sg q || p] and KL[q || sg p] in nats, summed over the variables, at least `free_nats`, and averaged."""
    q, p = probabilities(posterior), probabilities(prior)
    dynamics = (q.detach() * (q.detach().log() - p.log())).sum((-1, -2))
    representation = (q * (q.log() - p.detach().log())).sum((-1, -2))
    return dynamics.clamp_min(free_nats).mean(), representation.clamp_min(free_nats).mean()


def uniforms(noise: Float[Tensor, "B M"], count: int) -> Float[Tensor, "B count"]:
    """As many uniform numbers as are needed, made from M normal ones: the same noise gives the same numbers.

    A normal number becomes uniform by its distribution function; what is missing comes from hashes of its digits
    (SplitMix64), a new one in every round.
    """
    rounds = -(-count // noise.shape[1])
    uniform = torch.special.ndtr(noise.detach().double())
    bits = (uniform * 2**53).long()
    parts = [uniform] + [_mixed(bits + number) for number in range(1, rounds)]
    return torch.cat(parts, 1)[:, :count].float()


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's output for integers, as numbers from 0 up to 1."""
    x = x * -7046029254386353131  # 0x9E3779B97F4A7C15
    x = (x ^ _shifted(x, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ _shifted(x, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return _shifted(x ^ _shifted(x, 31), 11).double() * 2.0**-53


def _shifted(x: Tensor, count: int) -> Tensor:
    """To the right by so many bits, filled with zeros."""
    return (x >> count) & ((1 << (64 - count)) - 1)
