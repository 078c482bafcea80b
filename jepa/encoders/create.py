"""Encoders by the name of their size: `create_encoder("vit_base", image_size=256, frames=16)`."""

from typing import Any

from jepa.config import UserError, errors_of, from_dict
from jepa.config.errors import did_you_mean
from jepa.encoders.sizes import SIZES
from jepa.encoders.video_vit import VideoViT

NAMES = tuple(f"vit_{name}" for name in SIZES)


def create_encoder(
    name: str, *, image_size: int = 256, frames: int = 16, channels: int = 3, **settings: Any
) -> VideoViT:
    """Create a randomly initialized video transformer of a published size.

    `forward` maps normalized video [B, T, C, h, w], square or not, to latents [B, T/tubelet, h/patch * w/patch, width].
    `forward_features`, `forward_intermediates` and `feature_map` return other features.

    Args:
        name: vit_tiny, vit_small, vit_base, vit_large, vit_huge, vit_giant or vit_gigantic (jepa/encoders/sizes.py).
        image_size: of the training clips in pixels; `forward` also accepts other sizes.
        frames: of the training clips; `forward` also accepts other lengths.
        channels: of the video.
        settings: other fields of `jepa.encoders.video_vit.VideoViT.Config`, such as tubelet=4.

    Raises:
        UserError: there is no such name or setting, or the sizes do not fit.
    """
    if name not in NAMES:
        near = did_you_mean(name, NAMES, cutoff=0.4) or "."
        raise UserError(f"there is no encoder '{name}'{near} The names are {', '.join(NAMES)}")
    config = from_dict(dict(size=name.removeprefix("vit_"), **settings), VideoViT.Config, source=name)
    with errors_of(name):
        return VideoViT(config, image_size, frames, channels=channels)
