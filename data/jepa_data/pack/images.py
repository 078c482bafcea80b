"""Still images: stored as they are where they fit, otherwise upright and scaled."""

import io
from typing import Any

from PIL import Image

from jepa_data.decode import VideoIndex
from jepa_data.decode.image import decode_image, probe_image
from jepa_data.pack.recipe import Recipe, scaled

FORMATS: dict[str, dict[str, Any]] = {"jpeg": {"format": "JPEG", "quality": 92}, "png": {"format": "PNG"}}


def image(data: bytes, recipe: Recipe) -> tuple[bytes, VideoIndex]:
    """The bytes to store, and their index. Raises DecodeError."""
    index = probe_image(data)
    if recipe.video == "copy" or min(index.height, index.width) <= recipe.short_side:
        return data, index
    size = scaled(index.height, index.width, recipe.short_side)
    buffer = io.BytesIO()
    upright = Image.fromarray(decode_image(data, size=size))
    upright.save(buffer, **FORMATS[index.codec])
    stored = buffer.getvalue()
    return stored, probe_image(stored)
