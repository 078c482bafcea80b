"""Encoders by the name of their size: `create_encoder("vit_base", image_size=256, frames=16)`."""

import difflib
from collections.abc import Sequence

from jepa.config import UserError
from jepa.encoders.sizes import SIZES
from jepa.encoders.video_vit import Attends, VideoViT
from jepa.transformer import Positions

NAMES = tuple(f"vit_{name}" for name in SIZES)


def create_encoder(
    name: str,
    *,
    image_size: int = 256,
    frames: int = 16,
    patch: int = 16,
    tubelet: int = 2,
    channels: int = 3,
    cls_token: bool = False,
    attention: Attends = "bidirectional",
    positions: Positions = "rotary",
    levels: Sequence[int] = (),
    position_grid: int | None = None,
    images: bool = False,
    checkpoint_every: int = 0,
) -> VideoViT:
    """A freshly initialized video transformer of a published size.

    Its forward pass takes normalized video [B, T, C, h, w], square or not, and gives latents
    [B, T/tubelet, h/patch * w/patch, width]; `forward_features`, `forward_intermediates` and `feature_map` give more.

    Args:
        name: vit_tiny, vit_small, vit_base, vit_large, vit_huge, vit_giant or vit_gigantic (jepa/encoders/sizes.py).
        image_size, frames: of the clips it is to be trained on, pixels and frames; others may be given to it.
        The other arguments are those of `jepa.encoders.video_vit.VideoViT`.

    Raises:
        UserError: there is no such name, or the sizes do not fit.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UserError(f"there is no encoder '{name}'; {hint}The names are {', '.join(NAMES)}")
    size = SIZES[name.removeprefix("vit_")]
    try:
        return VideoViT(
            image_size,
            patch,
            tubelet,
            size.width,
            size.depth,
            size.heads,
            frames,
            size.mlp_ratio,
            channels=channels,
            cls_token=cls_token,
            attention=attention,
            positions=positions,
            levels=levels,
            position_grid=position_grid,
            images=images,
            checkpoint_every=checkpoint_every,
        )
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
