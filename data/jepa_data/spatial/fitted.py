"""Aligned arrays, moved as the images of their video are: cropped and scaled.

image  [h, w]   ──crop──→  box  ──scale──→  clip [H, W]
mask, depth     the nearest pixel: classes and distances are never averaged over an edge
keypoints       the same point of the image; outside the box it keeps its coordinates, and its visibility is 0
pose            as it is: it is in the world, not in the image
"""

import numpy as np
from jaxtyping import Float32, Int64

from jepa_data.decode import Crop, Size
from jepa_data.spatial.kinds import MAPS


def fitted(kind: str, array: np.ndarray, image: Size, crop: Crop | None, size: Size) -> np.ndarray:
    """An aligned array [T, ...] as it belongs to cropped and scaled frames.

    Args:
        array: maps may have another resolution than the image; they come out at `size`.
        image: height and width of the frames before.
        crop: top, left, height, width of the part that is seen, in pixels; None: all.
        size: height and width of the frames after.
    """
    box = crop or (0, 0, *image)
    if kind in MAPS:
        rows = nearest(box[0], box[2], image[0], array.shape[1], size[0])
        columns = nearest(box[1], box[3], image[1], array.shape[2], size[1])
        return array[:, rows[:, None], columns]
    if kind == "keypoints":
        return moved(array, box, size)
    return array


def nearest(start: int, length: int, pixels: int, cells: int, out: int) -> Int64[np.ndarray, " out"]:
    """The cell in which the middle of each of `out` pixels lies.

    Args:
        start, length: of the part of an axis of `pixels` that is scaled to `out`.
        cells: into which the whole axis is divided.
    """
    middles = start + (np.arange(out) + 0.5) * (length / out)
    return np.clip(np.floor(middles * (cells / pixels)), 0, cells - 1).astype(np.int64)


def moved(points: Float32[np.ndarray, "T K C"], box: Crop, size: Size) -> Float32[np.ndarray, "T K C"]:
    """Keypoints of an image in a part of it that is scaled to `size`."""
    top, left, height, width = box
    scale = np.array([size[1] / width, size[0] / height], np.float32)
    there = points.copy()
    there[..., :2] = (points[..., :2] - np.array([left, top], np.float32)) * scale
    if points.shape[-1] == 3:
        there[..., 2] *= in_image(there, size)
    return there


def in_image(points: np.ndarray, size: Size) -> np.ndarray:
    """Which points [..., 2 or more] lie in an image of this height and width."""
    x, y = points[..., 0], points[..., 1]
    return (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
