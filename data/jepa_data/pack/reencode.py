"""A part of a video, scaled, at another rate, as an mp4 that is cheap to read at random. Memory is flat."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from jepa_data.decode import Reader, Size, VideoIndex
from jepa_data.errors import DataError, DecodeError
from jepa_data.pack.recipe import Recipe, scaled
from jepa_data.sampling import action_stride
from jepa_data.shards.encode import Mp4Encoder

CHUNK = 32  # frames in memory at a time


def reencode(reader: Reader, indices: Int64[np.ndarray, " T"], fps: float, recipe: Recipe) -> bytes:
    """The frames with these numbers, ascending, as an mp4 of `fps` frames a second. Raises DecodeError."""
    index = reader.index
    height, width = scaled(index.height, index.width, recipe.short_side)
    with Mp4Encoder(height, width, fps, recipe.gop, recipe.crf, recipe.pixel_format) as encoder:
        for images in _images(reader, indices, (height, width)):
            encoder.add(images)
        return encoder.finish()


def packed_rate(index: VideoIndex, recipe: Recipe) -> float:
    """Frames a second after packing: those of the recipe, or the video's own where it has fewer."""
    own = index.fps or recipe.fps or 1.0
    # Nominal rates are not taken literally: 29.97 will do for 30.
    if recipe.fps and (recipe.slower == "repeat" or own > 0.998 * recipe.fps):
        return recipe.fps
    return own


def frame_numbers(index: VideoIndex, first: int, last: int, fps: float) -> Int64[np.ndarray, " T"]:
    """Numbers of the frames on screen every 1/fps seconds, from frame `first` on, before frame `last`."""
    seconds = frame_seconds(index)
    start = seconds[first]
    length = seconds[last] - start
    slack = min(5e-4, length / max(1, last - first) / 4)
    count = max(1, int(np.ceil((length - slack) * fps)))
    times = start + np.arange(count) / fps
    shown = np.searchsorted(seconds[:-1], times + slack, side="right") - 1
    return np.clip(shown, first, last - 1).astype(np.int64)


def steady_numbers(index: VideoIndex, first: int, last: int, fps: float) -> tuple[Int64[np.ndarray, " T"], int]:
    """Where every frame has an action: every k-th frame, and k. Raises DecodeError where rates do not divide."""
    try:
        stride = action_stride(index.fps, fps)
    except DataError as error:
        raise DecodeError("another rate", f"{index.fps:g} frames a second do not divide by {fps:g}") from error
    return np.arange(first, last, stride, dtype=np.int64), stride


def frame_seconds(index: VideoIndex) -> Float64[np.ndarray, " E"]:
    """When each of F frames is shown, counted from the first, and when the last one ends: E = F + 1 times."""
    seconds = index.seconds
    return np.append(seconds, seconds[-1] + (1 / index.fps if index.fps > 0 else 0.0))


def _images(reader: Reader, indices: Int64[np.ndarray, " T"], size: Size) -> Iterator[UInt8[np.ndarray, "t h w 3"]]:
    # A frame that is asked for twice is decoded once: repeats never reach the decoder, which would have to go back.
    numbers, repeats = np.unique(indices, return_counts=True)
    for at in range(0, len(numbers), CHUNK):
        part = slice(at, at + CHUNK)
        yield np.repeat(reader.frames(numbers[part], size=size), repeats[part], axis=0)
