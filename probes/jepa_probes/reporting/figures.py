"""What a model sees, imagines and does, as images. Each function returns frames; `drawing` writes the files.

    contact_sheet   the data                          pca_video      features as colors, below the inputs of clips
    rollout_video   imagined against true             feature_video  the same beside the input of one video
    plan_video      start, goal, imagined, real       rollout_strip  imagined against true, on paper

Videos are uint8 [T, 3, h, w]; what a model imagines comes decoded (jepa/decoders/pixels.py). A latent step is shown as
its last frame.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from jepa_data.transforms import resize
from jepa_probes.probing import reduction
from jepa_probes.reporting.drawing import PAPER, caption, enlarge, fit_to, tile, to_frames

TRACE_COLOURS = ((255, 176, 0), (100, 143, 255), (220, 38, 127))  # distinct for color-blind readers (IBM's set)
ROBUST = (0.01, 0.99)  # quantiles that become black and full color


def contact_sheet(
    video: UInt8[Tensor, "B T 3 h w"], *, clips: int = 4, frames: int = 10, seconds_per_frame: float | None = None
) -> UInt8[np.ndarray, "Y X 3"]:
    """The first clips as rows, frames spread evenly over each."""
    at = torch.linspace(0, video.shape[1] - 1, min(frames, video.shape[1])).round().long()
    cells = [[enlarge(to_frames(clip[t : t + 1]), 96) for t in at.tolist()] for clip in video[:clips]]
    times = [] if seconds_per_frame is None else [f"{t * seconds_per_frame:.1f} s" for t in at.tolist()]
    return tile(cells, columns=times)[0]


def pca_video(
    video: UInt8[Tensor, "B T 3 h w"],
    latents: Float[Tensor, "B S N D"],
    maps: Float[Tensor, "B S hh ww E"] | None = None,
) -> UInt8[np.ndarray, "S Y X 3"]:
    """The first three principal components of what the encoder makes of each step, under the input.

    Spatial features become colors: tokens of a square grid, or `maps` (of a convolutional encoder). A latent that is
    one vector per step has no place in the image: its components are drawn over time.
    The components are those of all clips together, so a color means the same everywhere.

    Raises:
        ValueError: the tokens are no square and no maps are given.
    """
    steps, tokens = latents.shape[1:3]
    shown = video[:, _last_frames(video.shape[1], steps)]
    images = [enlarge(to_frames(clip)) for clip in shown]
    height, width = images[0].shape[1:3]
    cells = {"input": images}
    if maps is None and tokens > 1:
        side = math.isqrt(tokens)
        if side * side != tokens:
            raise ValueError(f"{tokens} tokens are no square grid; give their maps [B, S, h', w', E]")
        maps = latents.unflatten(2, (side, side))
    if maps is not None:
        cells["features"] = [fit_to(clip, height, width) for clip in feature_colors(maps)]
    if tokens == 1:
        traces = _unit(principal_components(latents))[:, :, 0].cpu().numpy()
        cells["latent"] = [_trace(clip, width, height * 2 // 3) for clip in traces]
    return tile(list(cells.values()), list(cells))


def feature_video(video: UInt8[Tensor, "T 3 h w"], maps: Float[Tensor, "S hh ww E"]) -> UInt8[np.ndarray, "S Y X 3"]:
    """One video and, beside it, its features as colors that are those of this video alone."""
    image = enlarge(to_frames(video[_last_frames(len(video), len(maps))]))
    colors = fit_to(feature_colors(maps), *image.shape[1:3])
    return tile([[image, colors]], columns=["input", "features"])


def feature_colors(maps: Float[Tensor, "*any E"]) -> UInt8[np.ndarray, "*any 3"]:
    """The first three principal components of all features together as red, green and blue."""
    return (_unit(principal_components(maps)) * 255).round().to(torch.uint8).cpu().numpy()


def principal_components(features: Float[Tensor, "*any E"], count: int = 3) -> Float[Tensor, "*any count"]:
    """Features along their strongest directions, each of a sign that does not depend on the machine."""
    flat = features.flatten(0, -2).float()
    centered = flat - flat.mean(0)
    vectors, _ = reduction.principal_components(centered, count)
    largest = vectors.abs().argmax(0)
    vectors = vectors * vectors[largest, torch.arange(vectors.shape[1], device=vectors.device)].sign()
    components = (centered @ vectors).reshape(*features.shape[:-1], -1)
    return F.pad(components, (0, count - components.shape[-1]))


def rollout_video(
    true: UInt8[Tensor, "B H 3 h w"],
    decoded: UInt8[Tensor, "B H 3 h w"],
    imagined: UInt8[Tensor, "B H 3 h w"],
    *,
    step_seconds: float,
) -> UInt8[np.ndarray, "H Y X 3"]:
    """H steps ahead: what happened, what the decoder makes of the true latents (its own limit), what was imagined."""
    cells = [[enlarge(to_frames(clip)) for clip in row] for row in (true, decoded, imagined)]
    texts = [f"{(h + 1) * step_seconds:.1f} s after the last frame seen" for h in range(true.shape[1])]
    return caption(tile(cells, ["true", "decoded", "imagined"]), texts)


def rollout_strip(
    true: UInt8[Tensor, "H 3 h w"],
    decoded: UInt8[Tensor, "H 3 h w"],
    imagined: UInt8[Tensor, "H 3 h w"],
    *,
    step_seconds: float,
) -> UInt8[np.ndarray, "Y X 3"]:
    """One clip of `rollout_video` with time from left to right."""
    cells = [[enlarge(to_frames(row[h : h + 1]), 96) for h in range(len(row))] for row in (true, decoded, imagined)]
    times = [f"+{(h + 1) * step_seconds:.1f} s" for h in range(len(true))]
    return tile(cells, ["true", "decoded", "imagined"], times)[0]


def plan_video(
    real: UInt8[Tensor, "T 3 h w"],
    goal: UInt8[Tensor, "3 h w"],
    imagined: UInt8[Tensor, "H 3 h w"] | None,
    *,
    frames_per_step: int,
    reached: bool,
    distance: str = "",
) -> UInt8[np.ndarray, "T Y X 3"]:
    """Start, goal, what the first plan was imagined to lead to, and what happened.

    Args:
        real: every frame of the episode, the first is the start.
        imagined: decoded, one frame per latent step after the start; the last one stays. None: it cannot be shown.
        reached, distance: how it ended, said in the last line; the distance with its unit.
    """
    frames = len(real)
    panels = {"start": real[:1].expand(frames, -1, -1, -1), "goal": goal[None].expand(frames, -1, -1, -1)}
    if imagined is not None:
        step = torch.arange(frames) // frames_per_step
        if imagined.shape[-2:] != real.shape[-2:]:  # a model may look at smaller images than the world is drawn with
            height, width = real.shape[-2:]
            imagined = resize(imagined[None].float(), (height, width))[0].round().to(torch.uint8)
        panels["first plan"] = torch.cat([real[:1], imagined])[step.clamp_max(len(imagined))]
    panels["real"] = real
    image = tile([[enlarge(to_frames(panel)) for panel in panels.values()]], columns=list(panels))
    ending = ("reached the goal" if reached else "missed the goal") + (distance and f", {distance} away")
    texts = [f"frame {t}" for t in range(frames)]
    texts[-1] += f": {ending}"
    return caption(image, texts)


def _last_frames(frames: int, steps: int) -> slice:
    tubelet = frames // steps
    return slice(tubelet - 1, tubelet * steps, tubelet)


def _unit(x: Float[Tensor, "*any C"]) -> Float[Tensor, "*any C"]:
    """Each column to 0..1, by quantiles of everything."""
    flat = x.flatten(0, -2)
    bounds = [torch.from_numpy(np.quantile(flat.cpu().numpy(), q, axis=0)).to(x) for q in ROBUST]
    return ((x - bounds[0]) / (bounds[1] - bounds[0]).clamp_min(1e-9)).clamp(0, 1)


def _trace(values: Float[np.ndarray, "S 3"], width: int, height: int) -> UInt8[np.ndarray, "S H W 3"]:
    """Three curves over time; at each step, what is past is bright and the present is a dot."""
    scale = 2  # drawn twice as large and shrunk, which makes lines smooth
    margin = 8
    x = np.linspace(margin, width - margin, len(values)) * scale
    y = (height - margin - values * (height - 2 * margin)) * scale
    frames = []
    for s in range(len(values)):
        image = Image.new("RGB", (width * scale, height * scale), tuple(c // 2 for c in PAPER))
        draw = ImageDraw.Draw(image)
        for c, color in enumerate(TRACE_COLOURS):
            points = list(zip(x.tolist(), y[:, c].tolist(), strict=True))
            draw.line(points, tuple(v // 4 for v in color), 2 * scale)
            draw.line([*points[: s + 1], points[s]], color, 2 * scale)
            px, py = points[s]
            draw.ellipse((px - 7, py - 7, px + 7, py + 7), color)
        frames.append(np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)))
    return np.stack(frames)
