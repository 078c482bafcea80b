"""`jepa embed --pca`: what the encoder makes of a video, as colors beside it.

The features of all steps and places of the video are fitted together: their first three principal components become
red, green and blue, so one color means the same thing everywhere in the video, and nothing in another one. What stands
beside them is what the encoder sees: the image as it was cropped and scaled for it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from jepa.config import UserError
from jepa.world_model import LatentWorldModel
from jepa_data.preprocessing import VideoFile
from jepa_probes.reporting.drawing import write_video
from jepa_probes.reporting.figures import feature_video
from jepa_probes.reporting.gallery import feature_maps

LONGEST = 120  # latent steps drawn


def open_image(out: Path) -> Callable[[UInt8[np.ndarray, "T Y X 3"], float], None]:
    """What writes frames, at so many a second, to `out`. Raises UserError if its name does not end in .gif or .mp4."""
    if out.suffix.lower() not in (".gif", ".mp4"):
        raise UserError(f"--pca is {out}; give a name that ends in .gif or .mp4")
    return lambda frames, fps: write_video(frames, out, fps)


def draw_features(model: LatentWorldModel, file: VideoFile, clip_frames: int | None) -> UInt8[np.ndarray, "S Y X 3"]:
    """What the encoder sees, a frame a latent step, and its features beside it; at most the first `LONGEST` steps.

    Args:
        clip_frames: encoded together; None: all.

    Raises:
        UserError: the video is shorter than a step, or the latents have no place in the image.
    """
    per_step = model.spec.frames_per_step
    steps = min(file.frames // per_step, LONGEST)
    if not steps:
        raise UserError(f"the video has {file.frames} frame(s); one latent step takes {per_step}")
    blocks = list(file.clips(clip_frames, steps * per_step))
    features = [maps.flatten(0, 1) for block in blocks if (maps := feature_maps(model, block)) is not None]
    if not features or features[0].shape[1] * features[0].shape[2] == 1:
        raise UserError(
            f"the latents of this model are {model.spec.tokens} vector(s) a step that have no place in the image, so "
            "there is no map to color. --pca is for encoders with tokens on a grid"
        )
    return feature_video(torch.cat([block.flatten(0, 1) for block in blocks]), torch.cat(features))
