"""V of World Models (Ha & Schmidhuber 2018, arXiv 1803.10122): a variational autoencoder of single frames.

    frame ──→ encoder ──→ mean, log variance ──→ z = mean + std * noise ──→ decoder ──→ frame'
    loss  = Σ (frame' - frame)²                    over the 3 * 64 * 64 pixels in 0..1
          + max(KL(N(mean, std) || N(0, 1)), tolerance * D)              of a frame, in nats; mean over the frames

Below the tolerance a frame's KL has no gradient: so much information is free. Dynamics are learned afterwards, on the
frozen encoder: `latent_dynamics` with the predictor `mdn_rnn` is M. Encoder and decoder have 4,348,547 parameters with
D = 32, and 4,446,915 with D = 64.

Forward FLOPs of a step: encoder and decoder on all frames.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from jepa.decoders.vae import VAEDecoder
from jepa.encoders.module import Encoder
from jepa.encoders.vae import VAEEncoder
from jepa.methods.base import Batch, ClipShape, Method, MethodConfig
from jepa.ranks import rank_part
from jepa_data.transforms import zero_to_one


class VAE(Method):
    """A variational autoencoder; the latent of planners and probes is the mean.

    Raises:
        ValueError: the encoder is no `vae`.
    """

    class Config(MethodConfig):
        """Reconstruction from a noisy latent (World Models' V)."""

        collapses = False
        kind: Literal["vae"] = "vae"
        kl_tolerance: float = Field(
            default=0.5, ge=0, description="nats of KL for each number of a latent that cost nothing, as in the paper"
        )

    config: Config
    encoder: VAEEncoder

    def __init__(self, config: Config, encoder: Encoder, clips: ClipShape) -> None:
        super().__init__(config, encoder)
        if not isinstance(encoder, VAEEncoder):
            raise ValueError("method vae trains an encoder that predicts a variance: encoder: {kind: vae}")
        self.decoder = VAEDecoder(VAEDecoder.Config(), 1, encoder.width, encoder.image_size)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss, its two terms, and the KL before the tolerance."""
        mean, log_variance = (x.float().flatten(0, 2) for x in self.encoder.posterior(batch.video))
        noise = rank_part(lambda n: torch.randn(n, mean.shape[1], generator=generator), len(mean), device=mean.device)
        images = self.decoder(mean + (0.5 * log_variance).exp() * noise).float()
        reconstruction = (images - zero_to_one(batch.video).float().flatten(0, 1)).square().sum((1, 2, 3)).mean()
        kl = kl_to_standard_normal(mean, log_variance)
        cost = kl.clamp_min(self.config.kl_tolerance * mean.shape[-1]).mean()
        terms = {"reconstruction": reconstruction.detach(), "kl": kl.mean().detach()}
        return {"loss": reconstruction + cost, **terms}


def kl_to_standard_normal(mean: Float[Tensor, "M D"], log_variance: Float[Tensor, "M D"]) -> Float[Tensor, " M"]:
    """KL(N(mean, variance) || N(0, 1)) in nats, summed over the numbers of a latent."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
