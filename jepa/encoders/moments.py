"""Where bodies of different colors are, and how they are turned: image moments, computed without labels or gradients.

    pixel  = mix of K+1 colors, the background's and one for each body      solved for its shares, which sum to 1
    body k = shares of its color in all pixels, scaled to a soft mask w of sum 1
      center       c = sum w (x, y)
      radius       r² = sum w rho²                                 rho, phi: polar about the center
      harmonics    h_m = sum w rho^p e^{i m phi} / r^p             m = 1, 2, 3; p = 3, 2, 3
    latent = center, and for each m  (r / m) h_m / mean |h_m|

A body that turns by a small angle a moves its harmonic m by r * a, as far as its own parts move, and a body that is
shifted moves its center by as much: distances of latents are distances in the image. Harmonics that a shape does not
have, such as all of a disc, are small or change from frame to frame, and are left at 0.

`fit` finds the colors: the background is the most frequent one, and each further one is, of those that are frequent
enough, the farthest from all mixes of the ones before (successive projection, Araújo et al. 2001). Pixels on the rim of
a body are mixes, so its center is found to a hundredth of a pixel. Bodies of one color are one body here, bodies that
cover each other or a background of many colors are not understood: see the shares with `masks`.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from jepa.encoders.base import ComputedConfig
from jepa.encoders.module import CLIPS_TO_FIT, Encoder

ORDERS = (1, 2, 3)
PER_BODY = 2 + 2 * len(ORDERS)
FAINTEST = 0.05  # mean |h_m| of a shape that has the harmonic
STEADY = 0.9  # (mean |h_m|)² / mean |h_m|² of such a shape; of noise, it is pi / 4
SMALLEST_SHARE = 0.05  # of a color in a pixel: less is noise
LEVELS = 16  # of each channel, for counting colors
FREQUENT = 2e-4  # share of the pixels that a body's color has at least
NEAR_ZERO = 1e-6


class MomentsEncoder(Encoder):
    """Video [B, T, 3, h, w] -> latents [B, T, 1, 8 * bodies], one for each frame."""

    tokens = 1
    tubelet = 1
    clips_to_fit = CLIPS_TO_FIT

    class Config(ComputedConfig):
        """Places and turns of bodies of different colors, computed from the data."""

        kind: Literal["moments"] = "moments"
        bodies: int = Field(default=2, ge=1, le=3, description="colors beside the background's, at most 3")

    config: Config

    def __init__(self, config: Config, image_size: int, frames: int) -> None:
        super().__init__()
        self.config = config
        self.image_size, self.width = image_size, PER_BODY * config.bodies
        self.unmix = nn.Parameter(torch.zeros(config.bodies, 4))  # shares of a color and 1
        self.register_buffer("lengths", torch.ones(config.bodies, len(ORDERS)))  # of h_m in the latent
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("at", (torch.arange(image_size) + 0.5) / image_size - 0.5, persistent=False)

    lengths: Tensor
    scale: Tensor
    at: Tensor

    def forward(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B T 1 D"]:
        """Raises ValueError if the images have another size."""
        center, harmonics, _ = self._moments(self.masks(video))
        turns = torch.view_as_real(harmonics) * self.lengths[..., None]
        parts = torch.cat((center, turns.flatten(-2)), -1)
        return self.scale * parts.flatten(-2)[:, :, None]

    def masks(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B T K h w"]:
        """The share of each body's color in each pixel, 0..1."""
        self.check_size(video)
        color, offset = self.unmix[:, :3], self.unmix[:, 3, None, None]
        share = torch.einsum("btchw,kc->btkhw", video, color.to(video)) + offset.to(video)
        return share.clamp(0, 1) * (share > SMALLEST_SHARE)

    @torch.no_grad()
    def fit(self, video: Float[Tensor, "B T C h w"]) -> None:
        """Find the colors, and the size of each harmonic. Raises ValueError if there are fewer colors than bodies."""
        colors = _extreme_colors(video.movedim(2, -1).reshape(-1, 3).float(), self.config.bodies + 1)
        mixes = torch.cat((colors.T, torch.ones(1, len(colors), device=colors.device)))
        self.unmix.copy_(torch.linalg.pinv(mixes)[1:])
        center, harmonics, radius = self._moments(self.masks(video))
        sizes = harmonics.abs().flatten(0, 1)
        strength = sizes.mean(0)
        has = (strength > FAINTEST) & (strength.square() > STEADY * sizes.square().mean(0))
        orders = torch.tensor(ORDERS, device=video.device)
        lengths = radius.flatten(0, 1).mean(0)[:, None] / orders / strength
        self.lengths.copy_(torch.where(has, lengths, 0))
        self.scale.copy_(1 / center.flatten(0, 1).std(0).mean().clamp_min(NEAR_ZERO))

    def _moments(
        self, masks: Float[Tensor, "B T K h w"]
    ) -> tuple[Float[Tensor, "B T K 2"], Tensor, Float[Tensor, "B T K"]]:
        """Centers in widths of the image from its middle, harmonics [B, T, K, 3] (complex), and RMS radii."""
        powers = torch.stack([self.at**power for power in range(4)]).to(masks)
        sums = powers @ masks @ powers.T  # [B, T, K, 4, 4] of y^row x^column
        mass = sums[..., 0, 0].clamp_min(NEAR_ZERO)
        mean = {(i, j): sums[..., j, i] / mass for i in range(4) for j in range(4 - i)}  # of x^i y^j
        x, y = mean[1, 0], mean[0, 1]
        xx, xy, yy = mean[2, 0] - x * x, mean[1, 1] - x * y, mean[0, 2] - y * y
        xxx = mean[3, 0] - 3 * x * mean[2, 0] + 2 * x**3
        xxy = mean[2, 1] - 2 * x * mean[1, 1] - y * mean[2, 0] + 2 * x * x * y
        xyy = mean[1, 2] - 2 * y * mean[1, 1] - x * mean[0, 2] + 2 * x * y * y
        yyy = mean[0, 3] - 3 * y * mean[0, 2] + 2 * y**3
        radius = (xx + yy).clamp_min(NEAR_ZERO).sqrt()
        harmonics = torch.stack(
            (
                torch.complex(xxx + xyy, xxy + yyy) / radius**3,
                torch.complex(xx - yy, 2 * xy) / radius**2,
                torch.complex(xxx - 3 * xyy, 3 * xxy - yyy) / radius**3,
            ),
            -1,
        )
        return torch.stack((x, y), -1), harmonics, radius


def _extreme_colors(pixels: Float[Tensor, "M 3"], count: int) -> Float[Tensor, "count 3"]:
    """The most frequent color, and those that are the farthest from all mixes of the ones before."""
    low, high = pixels.amin(0), pixels.amax(0)
    cell = ((pixels - low) / (high - low).clamp_min(NEAR_ZERO) * LEVELS).long().clamp_max(LEVELS - 1)
    codes, where, sizes = (cell @ cell.new_tensor([LEVELS**2, LEVELS, 1])).unique(
        return_inverse=True, return_counts=True
    )
    sums = torch.zeros(len(codes), 3, device=pixels.device).index_add_(0, where, pixels)
    means = sums / sizes[:, None]
    known = means[sizes.argmax()][None]
    frequent = means[sizes > FREQUENT * len(pixels)]
    size = (frequent - known).norm(dim=-1).amax()
    for number in range(1, count):
        left = frequent - known[0]
        if number > 1:
            left = left - left @ torch.linalg.pinv(known[1:] - known[0]) @ (known[1:] - known[0])
        distance = left.norm(dim=-1)
        if distance.amax() <= 0.05 * size + NEAR_ZERO:
            raise ValueError(f"expected {count - 1} bodies of different colors on one background, found {number - 1}")
        known = torch.cat((known, frequent[distance.argmax()][None]))
    return known
