"""NWM's conditional diffusion: draws the next latent, given a window of the last ones and the action.

    context z_{t-m+1} … z_t ───┐
    action, time ahead ────────┤
    noised z_{t+1}, its level ─┴─→ network ──→ estimate of z_{t+1}, or of the noise      jepa/cdit_network.py

    sampling   x0                     DDIM, `steps` evaluations of the network
               epsilon_learned_range  ancestral, as published (`steps` 250): the network estimates the noise and the
                                      variance of each step
    loss       squared error of the estimate at a random noise level; with a learned variance, + its bound
    planning   without noise nothing is drawn (`point`): "mean" is the estimate of z_{t+1} from no signal at all, one
               evaluation; "mode" runs the sampler from zero noise, `steps` evaluations

NWM estimates the noise; in latents of many numbers a token the estimate of x0 is better. The time ahead of `step` is
1, a latent step; training may show others (`denoising_loss`). In front of the first latent of an episode, the window
holds this latent again. Latents are standardized per channel by running statistics of training.

All of a draw follows from the given noise: DDIM starts from it, and ancestral sampling makes the noise of its further
steps from it. A temperature multiplies the variance of all noise.

Source: NWM (2412.03572). Shapes: B rows · S latent steps · N tokens · D width · C latents of context · A action.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from jepa import diffusion
from jepa.cdit_network import CDiTNetwork
from jepa.config.fields import Count
from jepa.normalize import RunningStandardize
from jepa.predictors.base import (
    PointEstimate,
    PredictionLoss,
    Predictor,
    PredictorConfig,
    SampledLatent,
    TensorState,
    check_no_states,
)
from jepa.predictors.rssm import uniforms
from jepa.ranks import rank_part
from jepa.world_model import State

Prediction = Literal["x0", "epsilon_learned_range"]
TAIL = 1e-7  # probability that further noise never leaves on either side


@dataclass(frozen=True)
class Window(TensorState):
    """The last latents, the present one last."""

    z: Float[Tensor, "B C N D"]


@dataclass(eq=False)
class DiffusedLatent(SampledLatent):
    """The next latent as what the sampler makes of noise."""

    model: "CDiT"
    window: Float[Tensor, "B C N D"]
    action: Float[Tensor, "B A"]

    def draw(self, noise: Float[Tensor, "B N D"] | None, temperature: float) -> Float[Tensor, "B N D"]:
        return self.model.draw(self.window, self.action, noise, temperature)


class CDiT(Predictor):
    """The Dynamics of `jepa.world_model` by conditional diffusion.

    Args:
        width, action_size: as in `Predictor`.
        grid: rows and columns of the tokens of a latent, whose positions are learned.
    """

    class Config(PredictorConfig):
        """Conditional diffusion transformer (NWM)."""

        kind: Literal["cdit"] = "cdit"
        hidden: Count = 192
        depth: Count = 4
        heads: Count = 6
        context: Count = Field(default=4, description="latents that it reads, the present one included")
        prediction: Prediction = Field(default="x0", description="what it estimates: the latent, or as NWM the noise")
        steps: int = Field(default=8, ge=1, le=diffusion.LEVELS, description="evaluations for one draw; NWM: 250")
        point: PointEstimate = Field(
            default="mean",
            description="what planners see: the mean, by one evaluation (prediction: x0), or a draw from zero noise",
        )

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.hidden % self.heads:
                raise ValueError(f"heads: hidden {self.hidden} does not divide into {self.heads}")
            if self.point == "mean" and self.prediction != "x0":
                raise ValueError(f"point: mean needs prediction x0, found {self.prediction}; choose mode")
            return self

    distribution: ClassVar[bool] = True
    reads_patches: ClassVar[bool] = True

    def __init__(self, config: Config, width: int, action_size: int, grid: tuple[int, int] = (1, 1)) -> None:
        super().__init__(config, width, action_size)
        self.context = config.context
        self.learns_variance = config.prediction == "epsilon_learned_range"
        self.scale_latents = RunningStandardize(width)
        outputs = width * (2 if self.learns_variance else 1)
        self.net = CDiTNetwork(
            config.hidden, config.depth, config.heads, config.context, grid[0] * grid[1], width, action_size, outputs
        )

    def parallel(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S A"], states: Float[Tensor, "B S X"] | None = None
    ) -> Float[Tensor, "B S N D"]:
        check_no_states(self, states)
        windows = self.windows(z).flatten(0, 1)
        return self.draw(windows, actions.flatten(0, 1)).unflatten(0, z.shape[:2])

    def loss(
        self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S-1 A"], generator: torch.Generator
    ) -> PredictionLoss:
        """As `denoising_loss`, of every next latent."""
        windows = self.windows(z[:, :-1]).flatten(0, 1)
        result = self.denoising_loss(windows, z[:, 1:].flatten(0, 1), actions.flatten(0, 1), generator)
        return PredictionLoss(result.terms, result.predicted[:, 0].unflatten(0, actions.shape[:2]))

    def denoising_loss(
        self,
        window: Float[Tensor, "B C N D"],
        target: Float[Tensor, "B N D"],
        action: Float[Tensor, "B A"],
        generator: torch.Generator,
        ahead: Float[Tensor, " B"] | None = None,
    ) -> PredictionLoss:
        """Squared error at random noise levels, in standardized numbers; no gradient reaches the targets.

        Args:
            action: from the last latent of the window to the target.
            ahead: latent steps between them; None: 1.

        Returns:
            Its `predicted` are the estimates [B, 1, N, D] at these noise levels.
        """
        target = target.detach().float()
        if self.training:
            self.scale_latents.update(target)
        x0 = self.scale_latents(target)
        rows, *size = x0.shape
        t = rank_part(lambda n: torch.randint(diffusion.LEVELS, (n,), generator=generator), rows, device=x0.device)
        noise = rank_part(lambda n: torch.randn(n, *size, generator=generator), rows, device=x0.device)
        x = diffusion.noised(x0, t, noise)
        given = self._given(window, action, ahead)
        if not self.learns_variance:
            estimate = self.net(x, t, *given).float()
            error = F.mse_loss(estimate, x0)
            return PredictionLoss({"prediction": error}, self.scale_latents.inverse(estimate)[:, None])
        epsilon, share = self.net(x, t, *given).float().chunk(2, -1)
        error = F.mse_loss(epsilon, noise)
        estimate = diffusion.denoised(x, t, epsilon.detach())
        bound = diffusion.variational_bound(x, x0, estimate, share, t)
        terms = {"prediction": error + bound, "noise_error": error, "variational_bound": bound}
        return PredictionLoss(terms, self.scale_latents.inverse(estimate)[:, None])

    def initial_state(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> Window:
        """The last latents; actions are not read. Raises ValueError if there are states."""
        check_no_states(self, states)
        return Window(self.windows(z[:, -self.config.context :])[:, -1])

    def step(
        self,
        state: State,
        action: Float[Tensor, "B A"],
        noise: Float[Tensor, "B N D"] | None = None,
        temperature: float = 1.0,
    ) -> tuple[Window, DiffusedLatent]:
        assert isinstance(state, Window)
        next_latent = DiffusedLatent(self, state.z, action)
        z = next_latent.sample(noise, temperature)
        return Window(torch.cat((state.z[:, 1:], z[:, None]), 1)), next_latent

    def windows(self, z: Float[Tensor, "B S N D"]) -> Float[Tensor, "B S C N D"]:
        """The last latents at every step; before the first one, it again."""
        missing = self.config.context - 1
        padded = torch.cat((z[:, :1].expand(-1, missing, -1, -1), z), 1)
        return padded.unfold(1, self.config.context, 1).movedim(-1, 2)

    def draw(
        self,
        window: Float[Tensor, "B C N D"],
        action: Float[Tensor, "B A"],
        noise: Float[Tensor, "B N D"] | None = None,
        temperature: float = 1.0,
    ) -> Float[Tensor, "B N D"]:
        """What the sampler makes of standard normal noise; without it, of none (`point`)."""
        given = self._given(window, action)
        if self.learns_variance:
            x = self._ancestral(window[:, -1], given, noise, temperature)
        else:
            x = self._ddim(window[:, -1], given, noise, temperature)
        return self.scale_latents.inverse(x).to(window.dtype)

    def _given(
        self, window: Tensor, action: Tensor, ahead: Float[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B K W"], Float[Tensor, "B W"]]:
        """What an evaluation reads beside the noised latent: tokens of the context, and condition."""
        self._check_actions(action)
        if ahead is None:
            ahead = torch.ones_like(action[:, 0])
        context = self.net.context(self.scale_latents(window))
        return context, self.net.condition(self.scale_actions(action), ahead)

    def _ddim(
        self, like: Float[Tensor, "B N D"], given: tuple[Tensor, Tensor], noise: Tensor | None, temperature: float
    ) -> Float[Tensor, "B N D"]:
        steps = 1 if noise is None and self.config.point == "mean" else self.config.steps
        x = _first(like, noise, temperature)
        for t, s in _jumps(diffusion.trailing_levels(steps), x):
            x = diffusion.ddim_step(x, self.net(x, t, *given).float(), t, s)
        return x

    def _ancestral(
        self, like: Float[Tensor, "B N D"], given: tuple[Tensor, Tensor], noise: Tensor | None, temperature: float
    ) -> Float[Tensor, "B N D"]:
        x = _first(like, noise, temperature)
        further = None if noise is None else temperature**0.5 * further_noise(noise, self.config.steps - 1)
        for number, (t, s) in enumerate(_jumps(diffusion.spread_levels(self.config.steps), x)):
            epsilon, share = self.net(x, t, *given).float().chunk(2, -1)
            mean, deviation = diffusion.ancestral_step(x, diffusion.denoised(x, t, epsilon), share, t, s)
            x = mean if further is None or number == len(further) else mean + deviation * further[number]
        return x


def further_noise(noise: Float[Tensor, "B N D"], count: int) -> Float[Tensor, "count B N D"]:
    """More standard normal noise of this shape, which follows from it row by row."""
    size = noise[0].numel()
    uniform = uniforms(noise.flatten(1), (count + 1) * size)[:, size:]
    normal = torch.special.ndtri(uniform.double().clamp(TAIL, 1 - TAIL)).float()
    return normal.unflatten(1, (count, *noise.shape[1:])).transpose(0, 1)


def _first(like: Float[Tensor, "B N D"], noise: Tensor | None, temperature: float) -> Float[Tensor, "B N D"]:
    """What a sampler starts from."""
    return torch.zeros_like(like, dtype=torch.float32) if noise is None else temperature**0.5 * noise.float()


def _jumps(levels: list[int], x: Tensor) -> Iterator[tuple[Int[Tensor, " B"], Int[Tensor, " B"]]]:
    """Each level and the one after it, for all rows of x; after the last one comes -1."""
    yield from pairwise(torch.tensor([*levels, -1], device=x.device)[:, None].expand(-1, len(x)))
