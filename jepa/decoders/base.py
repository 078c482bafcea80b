"""The base class of decoders: the latents of one step -> the image of that step's last frame.

    z [B, S, N, D] ──decode──→ uint8 [B, S, 3, h, w]

A decoder is fitted on frozen latents (fit.py), so it shows what they hold. What they do not hold comes out as blur, or,
from a decoder that draws, as one of the images that fit.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from jepa.config import Component

VECTOR_GRID = 8  # pixels a side of the map that a vector latent is unfolded to


class DecoderConfig(Component):
    """Settings of a decoder."""


class Decoder(nn.Module, ABC):
    """Latents to images. A subclass defines `images` and, if it is fitted, `error`.

    Args:
        tokens, width: N and D of the latents.
        image_size: height and width of the images in pixels.

    Attributes:
        peak_lr: of fitting.
        draws: whether a random generator changes what it shows.
    """

    Config: type[DecoderConfig] = DecoderConfig
    peak_lr: ClassVar[float] = 4e-3
    draws: ClassVar[bool] = False

    def __init__(self, config: DecoderConfig, tokens: int, width: int, image_size: int) -> None:
        super().__init__()
        self.config: Any = config
        self.shape = (tokens, width)
        self.image_size = image_size

    @abstractmethod
    def images(self, z: Float[Tensor, "B N D"], generator: torch.Generator | None = None) -> Float[Tensor, "B 3 h w"]:
        """Images in 0..1. Raises ValueError for latents of another shape than it was made for."""

    def error(
        self,
        z: Float[Tensor, "B N D"],
        target: Float[Tensor, "B 3 h w"],
        weight: Float[Tensor, "B 1 h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """What fitting minimizes: here the weighted squared error of images in 0..1."""
        return (weight * (self.images(z) - target).square()).mean()

    def prepare(self, latents: Float[Tensor, "M N D"], mean_image: Float[Tensor, "3 h w"]) -> None:
        """Before fitting: what it takes from the data as they are. By default nothing."""

    def adopt(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of the decoder that a method of the same name trained; only kinds in `OWN` do."""
        raise ValueError(f"a decoder of kind {self.config.kind} is fitted, not taken from a method")

    def bind(self, dynamics: Any) -> Self:
        """Use the model's dynamics, if it needs them; they are not saved with it."""
        return self

    @torch.no_grad()
    def decode(
        self, z: Float[Tensor, "B S N D"], generator: torch.Generator | None = None, *, chunk: int = 256
    ) -> UInt8[Tensor, "B S 3 h w"]:
        """Videos of latents, one frame a step, 0..255.

        Args:
            generator: of a decoder that draws; None: the same latent always gives the same image.
            chunk: images decoded at once.
        """
        parts = [(self.images(part, generator) * 255).round().to(torch.uint8) for part in z.flatten(0, 1).split(chunk)]
        return torch.cat(parts).unflatten(0, z.shape[:2])

    def _check(self, z: Float[Tensor, "B N D"]) -> None:
        if z.shape[1:] != self.shape:
            raise ValueError(f"decodes latents [B, {self.shape[0]}, {self.shape[1]}], found {list(z.shape)}")
