"""Anti-aliased images of discs, vectorized over episodes: distance to the rim gives the coverage of a pixel."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def paint_discs(image: Floats, center: Floats, radius: Floats, color: Floats, present: NDArray[np.bool_]) -> None:
    """Paint one disc an image, in place.

    Args:
        image: [E, h, w, 3], 0..1.
        center: [E, 2] (x to the right, y downwards) in 0..1.
        radius: [E] in image widths.
        color: [E, 3], 0..1.
        present: [E]; other images are not changed.
    """
    height, width = image.shape[1:3]
    rows = np.flatnonzero(present)
    if not rows.size:
        return
    # Only a square window around each disc is touched: 3-6 times faster than whole images.
    reach = int(np.ceil(radius[rows].max() * width)) + 1
    middle = center[rows, :, None] * np.array([[width], [height]], np.float32)
    pixels = np.floor(middle).astype(np.intp) + np.arange(-reach, reach + 1)  # [R, 2, P]
    x, y = pixels.swapaxes(0, 1)
    dx, dy = (pixels + 0.5 - middle).swapaxes(0, 1)
    distance = np.sqrt(dx[:, None, :] ** 2 + dy[:, :, None] ** 2)
    cover = np.clip(radius[rows, None, None] * width - distance + 0.5, 0.0, 1.0)
    within = ((x >= 0) & (x < width))[:, None, :] & ((y >= 0) & (y < height))[:, :, None]
    cover = np.where(within, cover, 0.0)[..., None].astype(np.float32)
    at = (rows[:, None, None], np.clip(y, 0, height - 1)[:, :, None], np.clip(x, 0, width - 1)[:, None, :])
    window = image[at]
    painted = window + cover * (color[rows][:, None, None] - window)
    # Clipped indices repeat the border pixels: write back only what lies inside, so that none is written twice.
    keep = np.nonzero(within)
    image[rows[keep[0]], y[keep[0], keep[1]], x[keep[0], keep[2]]] = painted[keep]


def paint_band(image: Floats, left: Floats, right: Floats, color: Floats) -> None:
    """Paint an upright band from `left` to `right` (both [E], 0..1; equal = no band) over everything, in place."""
    width = image.shape[2]
    column = np.arange(width, dtype=np.float32)
    cover = np.clip(np.minimum(right[:, None] * width - column, 1), 0, 1) - np.clip(
        np.minimum(left[:, None] * width - column, 1), 0, 1
    )
    image += cover[:, None, :, None] * (color[:, None, None] - image)


def background(texture: Floats, light: Floats, color: Floats, size: int) -> Floats:
    """Table images [E, size, size, 3] from a coarse texture, a light gradient and a base color.

    Args:
        texture: [E, g, g] added brightness on a coarse grid, interpolated.
        light: [E, 2] brightness gained from left to right and from top to bottom.
        color: [E, 3], 0..1.
    """
    grid = texture.shape[-1]
    at = (np.arange(size, dtype=np.float32) + 0.5) / size
    where = at * (grid - 1)
    low = np.minimum(where.astype(np.intp), grid - 2)
    share = (where - low).astype(np.float32)
    rows = texture[:, low] * (1 - share)[None, :, None] + texture[:, low + 1] * share[None, :, None]
    smooth = rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share
    slope = light[:, 1, None, None] * (at - 0.5)[None, :, None] + light[:, 0, None, None] * (at - 0.5)[None, None, :]
    return np.clip(color[:, None, None] + (smooth + slope)[..., None], 0, 1).astype(np.float32)


def paint_boxes(image: Floats, pose: Floats, boxes: tuple[tuple[tuple[float, float], ...], ...], color: Floats) -> None:
    """Paint an object made of boxes into every image, in place.

    Args:
        image: [E, h, w, 3], 0..1.
        pose: [E, 3] x and y of its origin in image widths, and the angle it is turned by, clockwise in radians.
        boxes: upper left and lower right corner of each, about the origin, in image widths.
        color: [3], 0..1.
    """
    height, width = image.shape[1:3]
    dx = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, None, :] - pose[:, 0, None, None]
    dy = ((np.arange(height, dtype=np.float32) + 0.5) / height)[None, :, None] - pose[:, 1, None, None]
    cos, sin = np.cos(pose[:, 2])[:, None, None], np.sin(pose[:, 2])[:, None, None]
    x = cos * dx + sin * dy
    y = cos * dy - sin * dx
    outside = [np.maximum(np.maximum(x0 - x, x - x1), np.maximum(y0 - y, y - y1)) for (x0, y0), (x1, y1) in boxes]
    cover = np.clip(0.5 - np.min(outside, 0) * width, 0.0, 1.0)[..., None]
    image += cover * (color - image)
