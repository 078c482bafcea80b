"""`jepa embed --pca`: what the encoder makes of a video, as colours beside it.

The features of all steps and places of the video are fitted together: their first three principal components become
red, green and blue, so one colour means the same thing everywhere in the video, and nothing in another one.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from jepa.config import UserError
from jepa.world_model import LatentWorldModel
from jepa_data.shards.encode import encode_mp4
from jepa_data.transforms import resize
from jepa_probes.drawing import write_gif
from jepa_probes.figures import feature_video
from jepa_probes.gallery import feature_maps

LONGEST = 120  # latent steps drawn
SIDE = 320  # pixels of the longer side that larger videos are drawn with
Cut = Callable[[Tensor], list[Tensor]]


def open_picture(out: Path) -> Callable[[UInt8[np.ndarray, "T Y X 3"], float], None]:
    """What writes frames, at so many a second, to `out`. Raises UserError if its name does not end in .gif or .mp4."""
    if out.suffix.lower() not in (".gif", ".mp4"):
        raise UserError(f"--pca is {out}; give a name that ends in .gif or .mp4")
    return lambda frames, fps: _write(frames, out, fps)


def draw_features(model: LatentWorldModel, video: UInt8[Tensor, "1 T 3 h w"], cut: Cut) -> UInt8[np.ndarray, "S Y X 3"]:
    """The input, a frame a latent step, and its features beside it; at most the first `LONGEST` steps.

    Args:
        cut: makes the clips that are encoded together.

    Raises:
        UserError: the video is shorter than a step, or the latents have no place in the picture.
    """
    per_step = model.spec.frames_per_step
    steps = min(video.shape[1] // per_step, LONGEST)
    if not steps:
        raise UserError(f"the video has {video.shape[1]} frame(s); one latent step takes {per_step}")
    video = video[:, : steps * per_step]
    found = [feature_maps(model, part[None]) for clips in cut(video) for part in clips]
    maps = [part for part in found if part is not None]
    if not maps or maps[0].shape[2] * maps[0].shape[3] == 1:
        raise UserError(
            f"the latents of this model are {model.spec.tokens} vector(s) a step that have no place in the picture, so "
            "there is no map to colour. --pca is for encoders with tokens on a grid"
        )
    return feature_video(_shrunk(video)[0], torch.cat(maps, 1)[0])


def _shrunk(video: UInt8[Tensor, "1 T 3 h w"]) -> UInt8[Tensor, "1 T 3 H W"]:
    height, width = video.shape[-2:]
    scale = SIDE / max(height, width)
    if scale >= 1:
        return video
    return resize(video.float(), (max(1, round(height * scale)), max(1, round(width * scale)))).round().to(torch.uint8)


def _write(frames: UInt8[np.ndarray, "T Y X 3"], out: Path, fps: float) -> None:
    if out.suffix.lower() == ".gif":
        write_gif(frames, out, fps=fps, hold=0.0)
        return
    even = [(0, side % 2) for side in frames.shape[1:3]]  # what plays everywhere has even sides
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(encode_mp4(np.pad(frames, ((0, 0), *even, (0, 0)), mode="edge"), fps, pixel_format="yuv420p"))
