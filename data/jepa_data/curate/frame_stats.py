"""What a few frames of a video say about it: light, motion, sharpness, and a hash that copies of it share.

Shapes: T frames looked at · h w pixels · all in gray levels, 0..255.

The hash is that of "perceptual hashing": the signs of the lowest frequencies of a small gray image (DCT-II), which
scaling and compression leave as they are; see C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash
Functions" (2010). Frequencies that are hardly there count as negative, so that noise does not decide. (In imagehash's
`phash` it does: copies of dark videos differ in 31 bits, of those with one small object in up to 12, and here in 2.)
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8, UInt64
from PIL import Image

SIDE = 64  # of the images that motion and hashes are taken of
HASHED = 4  # frames of a video that are hashed
DCT_SIDE = 32
DCT_BLOCK = 12  # frequencies in each direction that are looked at
FAINT = 4.0  # of a coefficient of the orthonormal DCT of 32 x 32 pixels: an amplitude of a quarter of a gray level
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True, slots=True)
class Looks:
    """What frames look like.

    Attributes:
        brightness: mean gray level.
        motion: mean absolute difference of neighboring frames; 0 for a single frame.
        sharpness: variance of the Laplacian, the median over the frames.
        hashes: 64 bits for each of four frames.
    """

    brightness: float
    motion: float
    sharpness: float
    hashes: UInt64[np.ndarray, "4"]


def look(frames: UInt8[np.ndarray, "T h w 3"]) -> Looks:
    """Measure frames, in the order they are shown."""
    gray = frames.astype(np.float32) @ LUMA
    small = shrunk(gray)
    # Evenly spread, without the ends, which copies are most often cut at.
    hashed = [small[round((i + 0.5) / HASHED * (len(small) - 1))] for i in range(HASHED)]
    return Looks(
        brightness=float(small.mean()),
        motion=float(np.abs(np.diff(small, axis=0)).mean()) if len(small) > 1 else 0.0,
        sharpness=float(np.median([sharpness(image) for image in gray])),
        hashes=np.array([image_hash(image) for image in hashed], np.uint64),
    )


def shrunk(gray: Float32[np.ndarray, "T h w"]) -> Float32[np.ndarray, "T 64 64"]:
    """The images out of proportion, each pixel the mean of what it covers."""
    images = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX) for image in gray]
    return np.stack([np.asarray(image, np.float32) for image in images])


def sharpness(gray: Float32[np.ndarray, "h w"]) -> float:
    """Variance of the Laplacian (four neighbors) inside the image; 0 if it has no inside."""
    if min(gray.shape) < 3:
        return 0.0
    middle = gray[1:-1, 1:-1]
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float((around - 4 * middle).var())


def image_hash(small: Float32[np.ndarray, "64 64"]) -> int:
    """64 bits: whether each of the 64 lowest frequencies (without the mean) is positive and more than faint."""
    half = small.reshape(DCT_SIDE, 2, DCT_SIDE, 2).mean(axis=(1, 3))
    coefficients = (_DCT @ half @ _DCT.T)[_LOWEST]
    return int(np.packbits(coefficients > FAINT).view(">u8")[0])


def _dct_rows(count: int, size: int) -> Float32[np.ndarray, "count size"]:
    """The first rows of the orthonormal DCT-II."""
    rows = np.cos(np.pi / size * np.outer(np.arange(count), np.arange(size) + 0.5)) * np.sqrt(2 / size)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


def _lowest(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the `count` lowest frequencies of a block, without the mean."""
    places = [(i, j) for i in range(DCT_BLOCK) for j in range(DCT_BLOCK)]
    chosen = np.array(sorted(places, key=lambda frequency: (sum(frequency), frequency))[1 : count + 1])
    return chosen[:, 0], chosen[:, 1]


_DCT = _dct_rows(DCT_BLOCK, DCT_SIDE)
_LOWEST = _lowest(64)
