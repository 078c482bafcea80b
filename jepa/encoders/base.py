"""What the config of any encoder tells. Imports no torch."""

from typing import TYPE_CHECKING, Any, Self

from jepa.config import Component


class EncoderConfig(Component):
    """Settings of an encoder. Every kind says `tubelet`, frames per latent step."""

    if TYPE_CHECKING:
        tubelet: int

    @property
    def has_weights(self) -> bool:
        """Whether it names trained weights, which training starts from."""
        return False

    @property
    def may_skip_parameters(self) -> bool:
        """Whether there are batches that leave some parameters without a gradient."""
        return False

    def without_weights(self) -> Self:
        """The same with random weights."""
        return self

    def per_frame(self) -> "EncoderConfig":
        """The encoder that tells a latent for every frame, with the same weights."""
        return self

    def weights_key(self) -> dict[str, Any]:
        """The settings that weights depend on: weights of one encoder fit another where these are equal."""
        return self.model_dump()

    def summary(self) -> str:
        """For a line about a model, such as "depth 12"."""
        return ""
