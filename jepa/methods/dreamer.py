"""DreamerV3's world model, encoder included, trained end to end (arXiv 2301.04104).

    video ──encoder──→ z_t ──┐
                             ├─ RSSM: h_t from the past, s_t ~ posterior(h_t, z_t), prior(h_t)      predictors/rssm.py
    actions ─────────────────┘
    [h_t, s_t] ──→ image_t (reconstruct: pixels)     ──→ reward_t, two-hot     ──→ the chance that the episode goes on
    [h_t, s ~ prior(h_t)] ──emission──→ z_t          the next embedding, from the past and the action alone

    loss  = image error                              squared, summed over pixels in 0..1
            or (reconstruct: embedding)  emission error, summed, + sigreg_weight * D * SIGReg(z): no decoder
          + max(1, KL[sg posterior || prior]) + 0.1 max(1, KL[posterior || sg prior])
          + two-hot cross-entropy of symexp bins of the reward  + cross-entropy of going on
          + (pixels) emission error                  through which no gradient reaches anything but the emission

The rewards of `predict: rewards` are the recorded states `reward` and `terminated`: those of worlds `gym:ID`. The step
to a frame has a reward; where there is none (NaN, as before the first frame of an episode) it is left out.

Unlike in DreamerV3, the decoder is the small one of `jepa.decoders.pixels`, and episodes are not discounted in the
target of going on. The actor-critic is in `jepa.agents.imagination`: `jepa dream` trains it on frozen latents z, `jepa
online` on [h, s], while the world model learns.

Forward FLOPs of a step: the encoder on all frames, S steps of the RSSM, S passes of each head.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.config.fields import Count
from jepa.decoders.dreamer import of_features
from jepa.encoders.module import Encoder
from jepa.methods.base import Batch, ClipShape, Method, MethodConfig, block_size, history
from jepa.objectives import two_hot
from jepa.objectives.sigreg import sigreg
from jepa.predictors.base import token_grid
from jepa.predictors.networks.block_gru import mlp
from jepa.predictors.rssm import RSSM, draw, kl_terms
from jepa.ranks import rank_part
from jepa_data.transforms import zero_to_one

TARGETS = ("reward", "terminated")  # the last two states of worlds gym:ID


class Dreamer(Method):
    """Encoder, RSSM, decoder and heads of DreamerV3, trained together.

    Args:
        encoder: video -> [B, S, N, D].

    Raises:
        ValueError: the image is no multiple of the decoder's grid of 8 pixels.
    """

    class Config(MethodConfig):
        """DreamerV3's world model: reconstructs images, or predicts the next embedding without a decoder."""

        kind: Literal["dreamer"] = "dreamer"
        predictor: RSSM.Config = RSSM.Config(normalize_actions=False)
        reconstruct: Literal["pixels", "embedding"] = Field(
            default="pixels", description="what trains the latents: the image, or the next embedding, with SIGReg"
        )
        predict: Literal["rewards", "nothing"] = Field(
            default="rewards", description="also rewards and ends of episodes, if recorded (worlds gym:ID); or nothing"
        )
        decoder_channels: Count = Field(default=32, description="of the maps of the pixel decoder, a multiple of 4")
        sigreg_weight: float = Field(default=0.02, ge=0, description="beside the error of one number of an embedding")
        directions: Count = Field(default=256, description="random projections of SIGReg, drawn again each step")

        def target_names(self) -> tuple[str, ...]:
            return TARGETS if self.predict == "rewards" else ()

    needs_actions = True
    dynamics: RSSM

    def __init__(self, config: Config, encoder: Encoder, clips: ClipShape) -> None:
        super().__init__(config, encoder)
        grid = token_grid(encoder)
        self.dynamics = RSSM(config.predictor, encoder.width, block_size(encoder, clips), grid)
        self.history = history(self.dynamics, encoder, clips)
        hidden = config.predictor.hidden
        self.decoder = None
        if config.reconstruct == "pixels":
            self.decoder = of_features(self.dynamics.feature_size, encoder.image_size, config.decoder_channels)
        if config.predict == "rewards":
            self.reward_net = mlp(self.dynamics.feature_size, hidden, 1, two_hot.BINS)
            nn.init.zeros_(self.reward_net[-1].weight)  # pyright: ignore[reportArgumentType]
            self.continue_net = mlp(self.dynamics.feature_size, hidden, 1, 1)
            self.register_buffer("bins", two_hot.symexp_bins(), persistent=False)
            self.bins: Tensor

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss, its terms, and the cosine of predicted and true embedding."""
        return self.learn(batch, generator)[0]

    def learn(self, batch: Batch, generator: torch.Generator) -> tuple[dict[str, Tensor], Float[Tensor, "B S F"]]:
        """The loss, and the features [h, s] of the posterior, from which imagination starts.

        Raises:
            ValueError: the clips have no actions.
        """
        z = self.encoder(batch.video).float()
        actions = self.actions_of(batch)
        seen = self.dynamics.observe(z, actions, generator, batch.first)
        features = self.dynamics.features(seen.h, seen.s)
        c = self.config.predictor
        dynamics, representation = kl_terms(seen.posterior, seen.prior, c.free_nats)
        terms = {"dynamics_kl": dynamics, "representation_kl": representation}
        total = c.dynamics_weight * dynamics + c.representation_weight * representation
        if self.config.predict == "rewards":
            terms |= self.outcomes(features, batch)
            total = total + terms["reward"] + terms["continue"]
        if self.decoder is not None:
            terms["image"] = self.image_error(features, batch.video)
            total = total + terms["image"]
            past = (z.detach(), seen.h.detach(), seen.prior.detach())
            predicted, error = self.emission_error(*past, generator, batch.first)
            total = total + error
        else:
            predicted, error = self.emission_error(z, seen.h, seen.prior, generator, batch.first)
            terms["sigreg"] = sigreg(z.flatten(2).transpose(0, 1), generator, directions=self.config.directions)
            total = total + error + self.config.sigreg_weight * z[0, 0].numel() * terms["sigreg"]
        cosine = F.cosine_similarity(predicted.detach(), z[:, 1:].detach(), dim=-1).mean()
        terms |= {"emission": error / z[0, 0].numel()}
        scalars = {"loss": total, **{name: value.detach() for name, value in terms.items()}, "cosine": cosine}
        return scalars, features.detach()

    def image_error(self, features: Float[Tensor, "B S F"], video: Float[Tensor, "B T C h w"]) -> Float[Tensor, ""]:
        """Squared error of the last frame of each step, summed over its pixels."""
        assert self.decoder is not None
        images = zero_to_one(video[:, self.encoder.tubelet - 1 :: self.encoder.tubelet]).flatten(0, 1)
        decoded = self.decoder(features.flatten(0, 1)[:, None])
        return (decoded.float() - images).square().sum((1, 2, 3)).mean()

    def emission_error(
        self,
        z: Float[Tensor, "B S N D"],
        h: Float[Tensor, "B S R"],
        prior: Float[Tensor, "B S G C"],
        generator: torch.Generator,
        first: Bool[Tensor, "B S"] | None = None,
    ) -> tuple[Float[Tensor, "B Q N D"], Float[Tensor, ""]]:
        """Each embedding that has a past, from a draw of the prior; and its squared error, summed over its numbers."""
        size = prior.shape[1] - 1, prior.shape[2]
        numbers = rank_part(lambda n: torch.rand(n, *size, generator=generator), len(h), device=h.device)
        predicted = self.dynamics.emit(h[:, 1:], draw(prior[:, 1:], numbers))
        errors = (predicted.float() - z[:, 1:]).square().sum((-1, -2))
        return predicted, (errors if first is None else errors[~first[:, 1:]]).mean()

    def outcomes(self, features: Float[Tensor, "B S F"], batch: Batch) -> dict[str, Tensor]:
        """Losses of both heads, where there is a reward."""
        assert batch.targets is not None
        steps = batch.targets.unflatten(1, (-1, self.encoder.tubelet))
        reward = steps[..., 0].sum(-1)
        goes_on = (steps[..., 1] == 0).all(-1).float()
        known = reward.isfinite()
        errors = two_hot.cross_entropy(self.reward_net(features), reward.nan_to_num(), self.bins)
        ends = F.binary_cross_entropy_with_logits(self.continue_net(features)[..., 0].float(), goes_on)
        return {"reward": (errors * known).sum() / known.sum().clamp_min(1), "continue": ends}

    def reward(self, features: Float[Tensor, "*B F"]) -> Float[Tensor, "*B"]:
        """The expected reward of the step to a state."""
        return two_hot.decode(self.reward_net(features), self.bins)

    def continues(self, features: Float[Tensor, "*B F"]) -> Float[Tensor, "*B"]:
        """The probability that the episode goes on from a state."""
        return self.continue_net(features)[..., 0].sigmoid()
