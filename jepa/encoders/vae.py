"""V of World Models (Ha & Schmidhuber 2018, arXiv 1803.10122): a convolutional variational encoder of single frames.

    frame 64 px -> k4 s2, 32 -> k4 s2, 64 -> k4 s2, 128 -> k4 s2, 256 -> 2x2 map, 1024 numbers -> mean         [D]
                       31            14            6             2                             -> log variance [D]

ReLU after each convolution. Planners, probes and predictors read the mean; method `vae` trains it together with its
decoder, `jepa/decoders/vae.py`. D is 32 in the paper's CarRacing and 64 in its Doom.
"""

from typing import Literal

from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from jepa.config.fields import Count
from jepa.encoders.base import EncoderConfig
from jepa.encoders.conv import stack_tubelets
from jepa.encoders.module import Encoder

IMAGE_SIZE = 64
FEATURES = 1024  # of the last map: 256 x 2 x 2


class VAEEncoder(Encoder):
    """Video [B, T, 3, 64, 64] -> latents [B, T, 1, width]: the mean of the posterior of each frame.

    Args:
        image_size: 64.
        frames: of the clips; any number.
    """

    tokens = 1
    tubelet = 1

    class Config(EncoderConfig):
        """A vector of each frame, as in World Models."""

        kind: Literal["vae"] = "vae"
        width: Count = Field(default=32, description="D, size of the latent vector; 64 in the paper's Doom")
        tubelet: Literal[1] = 1

    def __init__(self, config: Config, image_size: int, frames: int) -> None:
        super().__init__()
        if image_size != IMAGE_SIZE:
            raise ValueError(
                f"the VAE of World Models reads images of {IMAGE_SIZE} px, found {image_size}; set data.image_size: "
                f"{IMAGE_SIZE}"
            )
        self.config = config
        self.image_size = image_size
        self.width = config.width
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64), (64, 128), (128, 256)):
            layers += [nn.Conv2d(inputs, outputs, 4, 2), nn.ReLU()]
        self.stem = nn.Sequential(*layers)
        self.mean = nn.Linear(FEATURES, self.width)
        self.log_variance = nn.Linear(FEATURES, self.width)

    def forward(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B T 1 D"]:
        """Raises ValueError if the images have another size."""
        return self.posterior(video)[0]

    def posterior(self, video: Float[Tensor, "B T C h w"]) -> tuple[Float[Tensor, "B T 1 D"], Float[Tensor, "B T 1 D"]]:
        """Mean and log variance of each frame's latent. Raises ValueError if the images have another size."""
        features = self._maps(video).flatten(1)
        mean, log_variance = (
            rearrange(head(features), "(b t) d -> b t 1 d", b=len(video)) for head in (self.mean, self.log_variance)
        )
        return mean, log_variance

    def feature_map(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B T hh ww E"]:
        """The last feature map, for visualization."""
        return rearrange(self._maps(video), "(b t) e y x -> b t y x e", b=len(video))

    def _maps(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "M E y x"]:
        return self.stem(stack_tubelets(video, 1, self.image_size))
