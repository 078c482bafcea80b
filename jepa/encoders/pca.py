"""Principal components of blurred images: a linear encoder that is computed from the data, without labels or gradients.

    frame -> mean colors of side x side cells -> colors whitened -> blurred -> D principal components, half whitened

A small model that is trained to predict its own latents keeps what moves most and drops the rest, such as the angle of
a pushed body. Principal components keep all that is seen, and distances between them are much like the overlap of
shapes. Whitened colors make a small body count as much as a large one of another color; the blur makes distances grow
smoothly where small bodies do not overlap. Half whitened: each component is divided by the root of its deviation.

The components are the weights of a linear layer, so a method that does not freeze its encoder trains them on.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.config.fields import Count, Positive
from jepa.encoders.base import ComputedConfig
from jepa.encoders.module import CLIPS_TO_FIT, Encoder

SMALLEST = 1e-3  # variance of a color direction or a component, beside the largest: less is taken for noise


class PCAEncoder(Encoder):
    """Video [B, T, 3, h, w] -> latents [B, T, 1, width], one for each frame.

    Before `fit`, the components are random directions.
    """

    tokens = 1
    tubelet = 1
    clips_to_fit = CLIPS_TO_FIT

    class Config(ComputedConfig):
        """Principal components of blurred images, computed from the data."""

        kind: Literal["pca"] = "pca"
        width: Count = Field(default=64, description="D, number of components")
        side: Count = Field(default=16, description="cells of the image per side; each is its mean color")
        blur: Positive = Field(default=1.0, description="standard deviation of the blur, in cells")

    config: Config

    def __init__(self, config: Config, image_size: int, frames: int) -> None:
        super().__init__()
        features = 3 * config.side**2
        if image_size % config.side or config.width > features:
            raise ValueError(
                f"expected a side that divides {image_size} pixels and gives at least {config.width} numbers a frame, "
                f"found side {config.side}, which gives {features}"
            )
        self.config = config
        self.image_size, self.width = image_size, config.width
        self.register_buffer("color_mean", torch.zeros(3))
        self.register_buffer("color_axes", torch.eye(3))
        cell = torch.arange(float(config.side))
        weights = torch.exp(-((cell[:, None] - cell) ** 2) / (2 * config.blur**2))
        self.register_buffer("blur", weights / weights.sum(1, keepdim=True), persistent=False)
        self.components = nn.Linear(features, config.width)

    color_mean: Tensor
    color_axes: Tensor
    blur: Tensor

    def forward(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B T 1 D"]:
        """Raises ValueError if the images have another size."""
        return self.components(self._blurred(self._cells(video)))[:, :, None]

    @torch.no_grad()
    def fit(self, video: Float[Tensor, "B T C h w"]) -> None:
        """Compute colors and components from clips. Raises ValueError if these have fewer frames than `width`."""
        if len(video) * video.shape[1] <= self.width:
            raise ValueError(f"expected more frames than {self.width} components, found {len(video) * video.shape[1]}")
        cells = self._cells(video).flatten(0, 1)
        colors = cells.movedim(1, -1).flatten(0, -2)
        self.color_mean.copy_(colors.mean(0))
        variance, axes = _principal(colors - self.color_mean)
        self.color_axes.copy_(axes @ torch.diag(variance.rsqrt()) @ axes.T)
        seen = self._blurred(cells)
        mean = seen.mean(0)
        variance, axes = _principal(seen - mean)
        scaled = axes[:, : self.width] * variance[: self.width].pow(-0.25)
        scaled = scaled / ((seen - mean) @ scaled).square().mean().sqrt()
        self.components.weight.copy_(scaled.T)
        self.components.bias.copy_(-mean @ scaled)

    def _cells(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B T C y x"]:
        self.check_size(video)
        cells = F.avg_pool2d(video.flatten(0, 1), self.image_size // self.config.side)
        return cells.unflatten(0, video.shape[:2])

    def _blurred(self, cells: Float[Tensor, "*batch C y x"]) -> Float[Tensor, "*batch F"]:
        """Whitened and blurred, as one vector."""
        whitened = torch.einsum("...cyx,dc->...dyx", cells - self.color_mean[:, None, None], self.color_axes)
        return (self.blur @ whitened @ self.blur.T).flatten(-3)


def _principal(rows: Float[Tensor, "M F"]) -> tuple[Float[Tensor, " F"], Float[Tensor, "F F"]]:
    """Variances, the largest first and none tiny beside it, and directions as columns."""
    variance, axes = torch.linalg.eigh(rows.T @ rows / len(rows))
    variance, axes = variance.flip(0), axes.flip(1)
    return variance.clamp_min(SMALLEST * variance[0].clamp_min(1e-12)), axes
