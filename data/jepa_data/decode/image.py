"""Still images, JPEG and PNG, as videos of one frame: upright, RGB, 8 bits.

Pillow reads them. A palette, gray, CMYK and 16 bits become RGB of 8 bits; what is transparent is put on white; the
orientation that a camera noted (EXIF) is applied.
"""

import io
import struct
import threading
import warnings
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jepa_data.decode.base import LIMITS, Crop, Limits, Size, VideoIndex, first_bytes, turned
from jepa_data.errors import DecodeError

SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LYING = (5, 6, 7, 8)  # orientations whose height is stored as width
# What Pillow's readers raise on damaged files.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, OverflowError, struct.error, zlib.error)
# Filters of warnings belong to the whole process; two threads that change them at once would leave them changed.
_warnings = threading.Lock()


def is_image(source: bytes | Path) -> bool:
    """Whether this is a JPEG or PNG, by its first bytes. Raises DecodeError if a file cannot be read."""
    return first_bytes(source, LIMITS).startswith(tuple(SIGNATURES))


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image of Pillow's as RGB of 8 bits, turned as its EXIF orientation says."""
    return _turned(_rgb(image), image.getexif().get(ORIENTATION))


def probe_image(data: bytes, limits: Limits = LIMITS) -> VideoIndex:
    """The index of an image: one frame, at 0 s, at no rate. Decodes it. Raises DecodeError."""
    height, width = decode_image(data, limits=limits).shape[:2]
    return VideoIndex(
        pts=np.zeros(1, np.int64),
        time_base=Fraction(1),
        keyframes=np.zeros(1, np.int64),
        width=width,
        height=height,
        rotation=0,
        codec=_codec(data),
        fps=0.0,
        hazards=(),
    )


def decode_image(
    data: bytes, *, size: Size | None = None, crop: Crop | None = None, limits: Limits = LIMITS
) -> UInt8[np.ndarray, "h w 3"]:
    """The image, cropped, then scaled to `size` (antialiased bicubic).

    Raises:
        DecodeError: "empty", "not an image", "too large", "truncated", "damaged", or "out of range" (the crop).
    """
    first_bytes(data, limits)
    codec = _codec(data)
    if codec == "png":
        _check_png(data)
    try:
        image, orientation = _opened(data, codec)
        with image:
            limits.check_image(*image.size)
            if size is not None and crop is None:
                # A JPEG is made 2, 4 or 8 times smaller while it is decoded; twice the size asked for keeps it sharp.
                height, width = turned(size, orientation in LYING)
                image.draft(None, (2 * width, 2 * height))
            rgb = _rgb(image)
    except DecodeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DecodeError("too large", f"more than {limits.max_pixels} pixels") from error
    except BROKEN as error:
        truncated = "truncated" in str(error) or (codec == "jpeg" and not data.rstrip(b"\0").endswith(b"\xff\xd9"))
        raise DecodeError("truncated" if truncated else "damaged", f"Pillow: {error}") from error
    rgb = _turned(rgb, orientation)
    if crop is not None:
        rgb = _cropped(rgb, crop)
    if size is not None and size != (rgb.height, rgb.width):
        rgb = rgb.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.array(rgb)


def _codec(data: bytes) -> str:
    for signature, codec in SIGNATURES.items():
        if data.startswith(signature):
            return codec
    raise DecodeError("not an image", "it is neither JPEG nor PNG")


def _opened(data: bytes, codec: str) -> tuple[Image.Image, object]:
    """The image with its header read, and its EXIF orientation, which is a number from 1 (upright) to 8, or wrong."""
    with _warnings, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of damaged notes beside the image
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data), formats=[codec.upper()])
        return image, image.getexif().get(ORIENTATION)


def _turned(rgb: Image.Image, orientation: object) -> Image.Image:
    if orientation in UPRIGHT:
        return rgb.transpose(UPRIGHT[orientation])
    return rgb


def _check_png(data: bytes) -> None:
    """Every chunk of a PNG carries a checksum that Pillow does not look at. Raises DecodeError."""
    at = 8
    name = b""
    while name != b"IEND":
        if at + 12 > len(data):
            raise DecodeError("truncated", "it ends before its last chunk")
        size, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 4 : at + 8 + size]
        if len(body) < 4 + size or at + 12 + size > len(data):
            raise DecodeError("truncated", "it ends before its last chunk")
        if zlib.crc32(body) != struct.unpack_from(">I", data, at + 8 + size)[0]:
            raise DecodeError("damaged", "the checksum of a chunk is wrong")
        at += 12 + size


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # gray of 16 bits: the upper eight
        gray = np.clip(np.asarray(image, np.float64) / 257 + 0.5, 0, 255).astype(np.uint8)
        return Image.fromarray(gray).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _cropped(image: Image.Image, crop: Crop) -> Image.Image:
    top, left, height, width = crop
    if top < 0 or left < 0 or top + height > image.height or left + width > image.width:
        raise DecodeError("out of range", f"crop {crop} reaches beyond an image of {(image.height, image.width)}")
    return image.crop((left, top, left + width, top + height))
