"""Probe and decode the video or image of a sample."""

import numpy as np
from jaxtyping import UInt8

from jepa_data.decode import Crop, Size, VideoIndex, get_backend
from jepa_data.shards.manifest import IMAGES


def probe_media(data: bytes, ending: str) -> VideoIndex:
    """Index of a video, or of an image as a video of one frame. Raises DecodeError."""
    if ending in IMAGES:
        from jepa_data.decode.image import probe_image

        return probe_image(data)
    return get_backend("pyav").probe(data)


def still(data: bytes, size: Size | None, crop: Crop | None) -> UInt8[np.ndarray, "1 h w 3"]:
    """An image as a video of one frame, cropped, then scaled. Raises DecodeError."""
    from jepa_data.decode.image import decode_image

    return decode_image(data, size=size, crop=crop)[None]
