"""Images as arrays: tiles with labels, and PNG and GIF files of them. Nothing here knows a model.

Image  uint8 [y, x, 3]          Frames  uint8 [t, y, x, 3]
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from jepa_data.shards.encode import encode_mp4

PAPER = (40, 44, 53)
INK = (226, 230, 238)
FAINT = (158, 164, 176)
GAP, FONT_SIZE = 6, 13
TILE = 144  # pixels a side that small images are enlarged to, roughly
PALETTE_FRAMES = 8


def to_frames(video: UInt8[Tensor, "T 3 h w"]) -> UInt8[np.ndarray, "T h w 3"]:
    return np.ascontiguousarray(video.permute(0, 2, 3, 1).cpu().numpy())


def enlarge(frames: UInt8[np.ndarray, "T h w 3"], side: int = TILE) -> UInt8[np.ndarray, "T H W 3"]:
    """By a whole factor, each pixel becoming a block, to at most about `side` pixels; never smaller than it was."""
    factor = max(1, round(side / frames.shape[1]))
    return frames.repeat(factor, 1).repeat(factor, 2)


def fit_to(frames: UInt8[np.ndarray, "T h w 3"], height: int, width: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Nearest-neighbor resampling to another size, also by factors that are no whole numbers."""
    rows = np.arange(height) * frames.shape[1] // height
    columns = np.arange(width) * frames.shape[2] // width
    return frames[:, rows][:, :, columns]


def tile(
    cells: Sequence[Sequence[UInt8[np.ndarray, "T _ _ 3"]]], rows: Sequence[str] = (), columns: Sequence[str] = ()
) -> UInt8[np.ndarray, "T Y X 3"]:
    """Cells of a table side by side, with labels to the left of the rows and above the columns.

    All cells have the same T; those of a row the same height, those of a column the same width.
    """
    left = GAP + max((int(font(FONT_SIZE).getlength(label)) + 1 + GAP for label in rows), default=0)
    top = GAP + (FONT_SIZE + GAP) * bool(columns)
    heights, widths = [row[0].shape[1] for row in cells], [cell.shape[2] for cell in cells[0]]
    size = (top + sum(heights) + GAP * len(heights), left + sum(widths) + GAP * len(widths))
    canvas = np.full((len(cells[0][0]), *size, 3), PAPER, dtype=np.uint8)
    marks: list[tuple[int, int, str, str]] = []
    y = top
    for r, row in enumerate(cells):
        x = left
        for c, cell in enumerate(row):
            canvas[:, y : y + heights[r], x : x + widths[c]] = cell
            if r == 0 and columns:
                marks.append((x + widths[c] // 2, GAP, columns[c], "ma"))
            x += widths[c] + GAP
        if rows:
            marks.append((left - GAP, y + heights[r] // 2, rows[r], "rm"))
        y += heights[r] + GAP
    painted = write_on(canvas[0], marks)
    changed = (painted != canvas[0]).any(-1)
    canvas[:, changed] = painted[changed]
    return canvas


def write_on(
    image: UInt8[np.ndarray, "Y X 3"],
    marks: Sequence[tuple[int, int, str, str]],
    color: tuple[int, int, int] = INK,
    size: int = FONT_SIZE,
) -> UInt8[np.ndarray, "Y X 3"]:
    """A copy with texts (x, y, text, anchor as in Pillow) on it."""
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    for x, y, text, anchor in marks:
        draw.text((x, y), text, fill=color, font=font(size), anchor=anchor)
    return np.asarray(canvas)


def caption(frames: UInt8[np.ndarray, "T Y X 3"], texts: Sequence[str]) -> UInt8[np.ndarray, "T Z X 3"]:
    """One line of text under each frame."""
    strip = np.full((len(frames), FONT_SIZE + 2 * GAP, frames.shape[2], 3), PAPER, dtype=np.uint8)
    strip = np.stack([write_on(s, [(GAP, 2, text, "la")], FAINT) for s, text in zip(strip, texts, strict=True)])
    return np.concatenate([frames, strip], 1)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def write_png(image: UInt8[np.ndarray, "Y X 3"], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, optimize=True)
    return path


def write_gif(frames: UInt8[np.ndarray, "T Y X 3"], path: Path, *, fps: float = 5.0, last_seconds: float = 1.0) -> Path:
    """An endless GIF. All frames share one palette, so still parts do not flicker; the last stays for `last_seconds`.

    Equal neighbors stay frames of their own: T frames go in, T come out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    palette = _palette(frames)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    step = max(20, round(100 / fps) * 10)  # browsers slow down anything faster than 20 ms
    durations = [step] * (len(images) - 1) + [step + round(last_seconds * 100) * 10]
    _keep_equal_neighbors(images)
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False)
    return path


def write_video(frames: UInt8[np.ndarray, "T Y X 3"], out: Path, fps: float) -> None:
    """As an endless GIF or as an mp4 that plays everywhere, by the ending of the name."""
    if out.suffix.lower() == ".gif":
        write_gif(frames, out, fps=fps, last_seconds=0.0)
        return
    even = [(0, side % 2) for side in frames.shape[1:3]]  # what plays everywhere has even sides
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(encode_mp4(np.pad(frames, ((0, 0), *even, (0, 0)), mode="edge"), fps, pixel_format="yuv420p"))


def _palette(frames: UInt8[np.ndarray, "T Y X 3"]) -> Image.Image:
    """255 colors for all frames. A color counts by the logarithm of its area, or small things would lose theirs."""
    shown = frames[np.linspace(0, len(frames) - 1, min(PALETTE_FRAMES, len(frames))).astype(int)]
    levels = shown.astype(np.int32) >> 3  # 32 of each primary color are kept apart
    packed = levels[..., 0] << 10 | levels[..., 1] << 5 | levels[..., 2]
    counts = np.bincount(packed.ravel(), minlength=2**15)
    present = np.flatnonzero(counts)
    colors = np.stack([present >> 10, present >> 5 & 31, present & 31], -1) << 3 | 4
    weighted = colors.astype(np.uint8).repeat(np.log2(counts[present]).astype(int) + 1, axis=0)
    return Image.fromarray(weighted[None]).quantize(255, method=Image.Quantize.MEDIANCUT)


def _keep_equal_neighbors(images: list[Image.Image]) -> None:
    """Pillow merges equal frames. A corner pixel, set to a second palette entry of the same color, prevents it."""
    palette = (images[0].getpalette() or [])[: 255 * 3]
    corner = images[0].getpixel((0, 0))
    assert isinstance(corner, int)
    palette += [0] * (255 * 3 - len(palette)) + palette[3 * corner : 3 * corner + 3]
    for image in images:
        image.putpalette(palette)
    for before, image in pairwise(images):
        if before.tobytes() == image.tobytes():
            image.putpixel((0, 0), 255)
