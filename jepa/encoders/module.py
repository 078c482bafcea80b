"""The base class of encoders."""

from jaxtyping import Float
from torch import Tensor, nn

from jepa.encoders.base import EncoderConfig

CLIPS_TO_FIT = 256  # for what is computed from clips


class Encoder(nn.Module):
    """Normalized video [B, T, 3, h, w] to latents [B, S, N, D], S = T / tubelet; made from its `Config`.

    `__init__` takes the config, and image_size and frames of the training clips. It raises ValueError if they do not
    fit together.

    Attributes: image_size; tubelet, frames per latent step; tokens, N at `image_size`; width, D; clips_to_fit, how many
    `fit` is shown before training.
    """

    Config: type[EncoderConfig] = EncoderConfig
    config: EncoderConfig
    image_size: int
    tubelet: int
    tokens: int
    width: int
    clips_to_fit: int = 0

    def fit(self, video: Float[Tensor, "B T C h w"]) -> None:
        """Compute from normalized clips what is not trained; most encoders have nothing of the kind."""

    def check_size(self, video: Float[Tensor, "B T C h w"]) -> None:
        """Raises ValueError if the images have another size than `image_size`."""
        if video.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"expected images of {self.image_size} pixels, found {list(video.shape[-2:])}")
