"""The video of `jepa imagine`: what was seen, then each imagined future beside the true one, errors below."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8

from jepa.config import UserError
from jepa_probes.reporting.drawing import caption, enlarge, tile, to_frames, write_video

if TYPE_CHECKING:
    from jepa_probes.imagining.imagine import Imagined

Frames = UInt8[np.ndarray, "T Y X 3"]


def writer_of(out: Path) -> Callable[[np.ndarray, float], None]:
    """What writes frames at so many a second. Raises UserError if the name ends neither in .mp4 nor in .gif."""
    if out.suffix.lower() not in (".gif", ".mp4"):
        raise UserError(f"--out is {out}; give a name that ends in .mp4 or .gif")
    return lambda frames, fps: write_video(frames, out, fps)


def draw(imagined: "Imagined") -> Frames:
    """One frame for each latent step; a row for each future, and the errors of the step below."""
    seen, true = imagined.seen, imagined.true
    rows = []
    for future in imagined.frames:
        cells = [torch.cat([seen, future])]
        if true is not None:
            cells.insert(0, torch.cat([seen, true]))
        rows.append([enlarge(to_frames(video)) for video in cells])
    columns = ["true", "imagined"] if true is not None else ["imagined"]
    frames = tile(rows, columns=columns)
    times, errors = _texts(imagined)
    return caption(caption(frames, times), errors)


def _texts(imagined: "Imagined") -> tuple[list[str], list[str]]:
    """The line of the time, and that of the errors, for each frame."""
    result = imagined.result
    times = ["seen"] * len(imagined.seen)
    times += [f"imagined, +{(step + 1) * result.step_seconds:.1f} s" for step in range(result.steps)]
    errors = [""] * len(imagined.seen)
    for step in range(result.steps):
        if not result.errors:
            errors.append("")
            continue
        error = result.errors[step]
        latent = "–" if error.latent is None else f"{error.latent:.2f}"
        errors.append(f"latent error {latent}, pixels {error.pixels:.1f}")
    return times, errors
