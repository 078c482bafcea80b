"""Angles and directions in the plane, in radians from x towards y."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def wrapped(angle: Floats) -> Floats:
    """The same angle in -pi..pi."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def unit_vector(angle: Floats | float) -> Floats:
    """Directions [..., 2] of angles [...]."""
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def angle_of(vectors: Floats) -> Floats:
    """Angles [...] of directions [..., 2]."""
    return np.arctan2(vectors[..., 1], vectors[..., 0])


def rotated(vectors: Floats, angle: Floats) -> Floats:
    """Vectors [..., 2], turned by angles [...]."""
    x, y = np.moveaxis(vectors, -1, 0)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * x - sin * y, sin * x + cos * y], -1)


def clip_to_unit(vectors: Floats) -> Floats:
    """Vectors [..., A]; those longer than 1 are scaled back to length 1."""
    return vectors / np.maximum(1.0, np.linalg.norm(vectors, axis=-1, keepdims=True))


def in_unit_disc(rng: np.random.Generator) -> Floats:
    """A uniform point [2] in the unit disc."""
    return np.sqrt(rng.uniform()) * unit_vector(rng.uniform(0, 2 * np.pi))
