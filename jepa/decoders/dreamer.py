"""The decoder of method `dreamer`, which reads the recurrent state [h, s], on latents of single steps.

    empty past ──core──→ h ──┐
                             ├─→ [h, s] ──pixels──→ image
    z ──────posterior(h, z)──→ s

A latent alone has no past, so h is that of the first step of an episode, as it was in training at every first frame.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from jepa.config.fields import Count
from jepa.decoders.base import Decoder, DecoderConfig
from jepa.decoders.pixels import PixelDecoder


class DreamerDecoder(Decoder):
    """Latents to images by the recurrent state that an RSSM infers from each alone. `bind` gives it the RSSM."""

    class Config(DecoderConfig):
        """The decoder that method `dreamer` trained with its world model."""

        kind: Literal["dreamer"] = "dreamer"
        features: Count = Field(description="numbers of the recurrent state")
        channels: Count = Field(default=32, description="of the maps, a multiple of 4")

    def __init__(self, config: Config, tokens: int, width: int, image_size: int) -> None:
        super().__init__(config, tokens, width, image_size)
        self.pixels = of_features(config.features, image_size, config.channels)
        self._dynamics: tuple[Any, ...] = ()  # not registered: it is saved with the model

    def bind(self, dynamics: Any) -> Self:
        """Raises ValueError if the dynamics have no recurrent state to infer."""
        if not hasattr(dynamics, "observe"):
            raise ValueError(f"needs the RSSM that it was trained with, found {type(dynamics).__name__}")
        self._dynamics = (dynamics,)
        return self

    def images(self, z: Float[Tensor, "B N D"], generator: torch.Generator | None = None) -> Float[Tensor, "B 3 h w"]:
        self._check(z)
        if not self._dynamics:
            raise ValueError("bind(dynamics) comes before decoding")
        dynamics = self._dynamics[0]
        seen = dynamics.observe(z[:, None], z.new_zeros(len(z), 0, dynamics.action_size))
        return self.pixels(dynamics.features(seen.h, seen.s))

    def adopt(self, weights: Mapping[str, Tensor]) -> None:
        self.pixels.load_state_dict(weights)


def of_features(features: int, image_size: int, channels: int) -> PixelDecoder:
    """The decoder of recurrent states, one vector each. Raises ValueError if the image does not fit its grid."""
    return PixelDecoder(PixelDecoder.Config(channels=channels, hidden=256, layers=1), 1, features, image_size)
