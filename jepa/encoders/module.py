"""The base class of encoders."""

from torch import nn

from jepa.encoders.base import EncoderConfig


class Encoder(nn.Module):
    """Normalized video [B, T, 3, h, w] to latents [B, S, N, D], S = T / tubelet; made from its `Config`.

    `__init__` takes the config, and image_size and frames of the training clips. It raises ValueError if they do not
    fit together.

    Attributes: image_size; tubelet, frames per latent step; tokens, N at `image_size`; width, D.
    """

    Config: type[EncoderConfig] = EncoderConfig
    config: EncoderConfig
    image_size: int
    tubelet: int
    tokens: int
    width: int
