"""The base class of encoder configs. Imports no torch."""

from typing import TYPE_CHECKING, Any, Literal, Self

from jepa.config import Component


class EncoderConfig(Component):
    """Settings of an encoder. Every kind has `tubelet`, the frames per latent step."""

    if TYPE_CHECKING:
        tubelet: int

    @property
    def has_weights(self) -> bool:
        """Whether training starts from pretrained weights."""
        return False

    @property
    def may_skip_parameters(self) -> bool:
        """Whether some batches give no gradient to some parameters."""
        return False

    def without_weights(self) -> Self:
        """The same config with random weights."""
        return self

    def per_frame(self) -> "EncoderConfig":
        """The config of an encoder with one latent per frame and the same weights."""
        return self

    def weights_key(self) -> dict[str, Any]:
        """The settings that weights depend on: encoders with equal keys can share weights."""
        return self.model_dump()

    def summary(self) -> str:
        """A short description, such as "depth 12"."""
        return ""


class ComputedConfig(EncoderConfig):
    """Settings of an encoder that is computed from clips before training, and reads one frame at a time."""

    tubelet: Literal[1] = 1

    @property
    def has_weights(self) -> bool:
        """It has, before training starts."""
        return True
