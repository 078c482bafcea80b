"""Images, vectorized over episodes.

Discs and boxes are anti-aliased: a pixel's coverage follows from its distance to the rim. A mosaic is a plane of
colored cells, each around a point of its own (Worley, "A cellular texture basis function", 1996). It repeats only after
so many cells, and every number of it is hashed from a key, so none has to be stored.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Boxes = tuple[tuple[tuple[float, float], ...], ...]  # upper left and lower right corner of each


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


def paint_boxes(image: Floats, pose: Floats, boxes: Boxes, color: Floats) -> None:
    """Paint an object made of boxes into every image, in place.

    Args:
        image: [E, h, w, 3], 0..1.
        pose: [E, 3] x and y of its origin in image widths, and the angle it is turned by, clockwise in radians.
        boxes: upper left and lower right corner of each, about the origin, in image widths.
        color: [3], 0..1.
    """
    width = image.shape[2]
    cover = np.clip(0.5 - _outside(image.shape[1:3], pose, boxes) * width, 0.0, 1.0)[..., None]
    image += cover * (color - image)


def _outside(size: tuple[int, ...], pose: Floats, boxes: Boxes) -> Floats:
    """How far the pixels [E, h, w] lie outside of the nearest box, in image widths; negative within it."""
    height, width = size
    dx = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, None, :] - pose[:, 0, None, None]
    dy = ((np.arange(height, dtype=np.float32) + 0.5) / height)[None, :, None] - pose[:, 1, None, None]
    cos, sin = np.cos(pose[:, 2])[:, None, None], np.sin(pose[:, 2])[:, None, None]
    x = cos * dx + sin * dy
    y = cos * dy - sin * dx
    outside = [np.maximum(np.maximum(x0 - x, x - x1), np.maximum(y0 - y, y - y1)) for (x0, y0), (x1, y1) in boxes]
    return np.min(outside, 0)


def mask_discs(mask: NDArray[np.uint8], center: Floats, radius: Floats, value: int, present: NDArray[np.bool_]) -> None:
    """Number the pixels [E, h, w] that `paint_discs` covers at least half, in place."""
    height, width = mask.shape[1:]
    dx = np.arange(width, dtype=np.float32) + 0.5 - center[:, :1] * width
    dy = np.arange(height, dtype=np.float32) + 0.5 - center[:, 1:] * height
    covered = dx[:, None, :] ** 2 + dy[:, :, None] ** 2 <= (radius * width)[:, None, None] ** 2
    mask[covered & present[:, None, None]] = value


def mask_boxes(mask: NDArray[np.uint8], pose: Floats, boxes: Boxes, value: int) -> None:
    """Number the pixels [E, h, w] that `paint_boxes` covers at least half, in place."""
    mask[_outside(mask.shape[1:], pose, boxes) <= 0] = value


@dataclass(frozen=True)
class Mosaic:
    """The cells of a mosaic for each of E episodes: g x g unit squares, each with a point; it repeats after g."""

    points: Floats  # [E, g, g, 2] x and y of the point within its square, 0..1
    colors: Floats  # [E, g, g, 3] 0..1


def make_mosaic(key: NDArray[np.uint64], size: int) -> Mosaic:
    """The mosaics of `size` x `size` cells that belong to `key` [E]; other keys give unrelated ones."""
    numbers = np.arange(1, 5 * size * size + 1, dtype=np.uint64)
    drawn = _mixed(_mixed(key)[:, None] + numbers * np.uint64(0x9E3779B97F4A7C15))
    uniform = ((drawn >> np.uint64(40)) / np.float32(2**24)).astype(np.float32)
    cells = uniform.reshape(len(key), size, size, 5)
    return Mosaic(cells[..., :2], cells[..., 2:])


def paint_mosaic(mosaic: Mosaic, x: Floats, y: Floats) -> Floats:
    """Colors [E, h, w, 3] at the places x, y [E, h, w], in squares: that of the nearest point."""
    episodes, size = mosaic.points.shape[:2]
    first = np.arange(episodes, dtype=np.int32)[:, None, None] * (size * size)
    point_x, point_y = np.ascontiguousarray(mosaic.points.reshape(-1, 2).T)
    left, top = np.floor(x), np.floor(y)
    column, row = left.astype(np.int32), top.astype(np.int32)
    columns = [(column + right) % size for right in (-1, 0, 1)]
    dx = [left + right - x for right in (-1, 0, 1)]
    best = np.full(x.shape, np.inf, np.float32)
    nearest = np.zeros(x.shape, np.int32)
    for down in (-1, 0, 1):
        line = first + (row + down) % size * size
        dy = top + down - y
        for across, distance_x in zip(columns, dx, strict=True):
            cell = line + across
            distance = np.square(point_x.take(cell) + distance_x) + np.square(point_y.take(cell) + dy)
            closer = distance < best
            np.copyto(best, distance, where=closer)
            np.copyto(nearest, cell, where=closer)
    return mosaic.colors.reshape(-1, 3).take(nearest, 0)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit depends on all bits of x: the finalizer of SplitMix64 (Steele, Lea, Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
