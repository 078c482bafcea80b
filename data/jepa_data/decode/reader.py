"""An open video, and what the readers of all backends share: a request becomes one ascending pass over its frames.

asked for      clip 0: 3 5 7     clip 1: 5 6 7     repeats and any order allowed
decoded        3 5 6 7                             each frame once, forward
handed out     3 5 7             5 6 7
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol, Self

import numpy as np
from jaxtyping import UInt8

from jepa_data.decode.base import (
    LIMITS,
    Crop,
    Indices,
    Limits,
    Seconds,
    Size,
    Source,
    VideoIndex,
    checked_indices,
    url_of,
)
from jepa_data.errors import DecodeError

Frames = UInt8[np.ndarray, "T h w C"]
Images = Iterator[tuple[int, Crop | None, UInt8[np.ndarray, "h w C"]]]  # number, crop and image of frames


class Reader(ABC):
    """One open video. Belongs to one thread; close it, or use it as a context manager.

    A backend adds `_images` and `close`.
    """

    def __init__(self, src: Source, index: VideoIndex, limits: Limits) -> None:
        self._src = src
        self._url = url_of(src)
        self._index = index
        self._limits = limits

    @property
    def index(self) -> VideoIndex:
        return self._index

    def frames(
        self,
        indices: Indices,
        *,
        size: Size | None = None,
        crop: Crop | None = None,
        out: Frames | None = None,
    ) -> Frames:
        """Exactly these frames, in the order asked for (repeats allowed), cropped, then scaled to `size`.

        Args:
            out: is filled and returned, if given.

        Raises:
            DecodeError: a frame does not exist or cannot be decoded. Another frame is never returned in its place.
        """
        numbers = checked_indices(indices, self._index.frames)
        shape = (len(numbers), *self._shape(size, crop))
        if out is None:
            out = np.empty(shape, np.uint8)
        elif out.shape != shape:
            raise ValueError(f"out: expected the shape {shape}, found {out.shape}")
        self._fill([numbers], [out], size, [crop])
        return out

    def clips(
        self, clips: Sequence[Indices], *, size: Size | None = None, crop: Crop | list[Crop | None] | None = None
    ) -> list[UInt8[np.ndarray, "_ _ _ 3"]]:
        """`frames` of several clips in one pass: a frame that several clips share is decoded once.

        Args:
            crop: of all clips, or a list with one for each.
        """
        crops = crop if isinstance(crop, list) else [crop] * len(clips)
        if len(crops) != len(clips):
            raise ValueError(f"crop: expected one for all clips or {len(clips)} in a list, found {len(crops)}")
        numbers = [checked_indices(clip, self._index.frames) for clip in clips]
        out = [np.empty((len(n), *self._shape(size, c)), np.uint8) for n, c in zip(numbers, crops, strict=True)]
        self._fill(numbers, out, size, crops)
        return out

    def blocks(
        self, indices: Indices, block_frames: int, *, size: Size | None = None, crop: Crop | None = None
    ) -> Iterator[UInt8[np.ndarray, "n h w C"]]:
        """`frames` of ascending indices, `block_frames` at a time: long videos in one pass with bounded memory.

        `Limits.timeout_seconds` holds for each block. Nothing else may be read meanwhile.
        """
        numbers = checked_indices(indices, self._index.frames)
        self._announce(numbers)
        try:
            for first in range(0, len(numbers), block_frames):
                yield self.frames(numbers[first : first + block_frames], size=size, crop=crop)
        finally:
            self._announce([])

    def _announce(self, numbers: Sequence[int]) -> None:  # noqa: B027 - most backends need no warning
        """These frames will be asked for by the next calls."""

    def at(self, seconds: Seconds, *, size: Size | None = None, crop: Crop | None = None) -> Frames:
        """The frames on screen at these times, counted from the first frame. Raises DecodeError ("out of range")."""
        return self.frames(self._index.shown_at(seconds), size=size, crop=crop)

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _images(self, wanted: dict[int, list[Crop | None]], size: Size | None) -> Images:
        """Each frame in `wanted`, whose numbers ascend, in each of its crops; in any order.

        Raises:
            DecodeError: a frame cannot be decoded.
        """

    def _fill(
        self, clips: list[list[int]], out: list[np.ndarray], size: Size | None, crops: Sequence[Crop | None]
    ) -> None:
        places: dict[int, dict[Crop | None, list[np.ndarray]]] = {}
        for clip, images, crop in zip(clips, out, crops, strict=True):
            for number, target in zip(clip, images, strict=True):
                places.setdefault(number, {}).setdefault(crop, []).append(target)
        try:
            for number, crop, image in self._images({n: list(places[n]) for n in sorted(places)}, size):
                for target in places[number].pop(crop):
                    target[...] = image
        except DecodeError as error:
            raise error.named(error.key, error.url or self._url) from error
        missing = [number for number, crops in places.items() if crops]
        if missing:
            raise DecodeError("missing frame", f"frame {min(missing)} of the index was not decoded", url=self._url)

    def _shape(self, size: Size | None, crop: Crop | None) -> tuple[int, int, int]:
        """h, w, C of the images handed out. Raises DecodeError for a crop beyond the image."""
        shown = (self._index.height, self._index.width)
        if crop is None:
            return (*(size or shown), 3)
        top, left, height, width = crop
        if min(top, left) < 0 or min(height, width) < 1 or top + height > shown[0] or left + width > shown[1]:
            raise DecodeError("out of range", f"crop {crop} reaches beyond an image of {shown}", url=self._url)
        return (*(size or (height, width)), 3)


class VideoBackend(Protocol):
    """A decoder library."""

    name: str

    def probe(self, src: Source, limits: Limits = LIMITS) -> VideoIndex:
        """Index of a video: reads its packets, decodes one frame. Raises DecodeError."""
        ...

    def open(self, src: Source, index: VideoIndex | None = None, limits: Limits = LIMITS) -> Reader:
        """A reader; `index`, where it was stored at packing time, saves the pass over the packets."""
        ...
