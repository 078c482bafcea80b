"""What the readers of all backends share: a request becomes one ascending pass over the frames it names.

asked for      clip 0: 3 5 7     clip 1: 5 6 7     repeats and any order allowed
decoded        3 5 6 7                             each frame once, forward
handed out     3 5 7             5 6 7
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from jaxtyping import UInt8

from jepa_data.decode.base import Crop, Indices, Limits, Seconds, Size, Source, VideoIndex, checked_indices
from jepa_data.errors import DecodeError


class OnePassReader(ABC):
    """See `Reader`. A backend adds `_pictures` and `close`."""

    def __init__(self, src: Source, index: VideoIndex, limits: Limits) -> None:
        self._src, self._index, self._limits = src, index, limits
        self._url = "" if isinstance(src, bytes) else str(src)

    @property
    def index(self) -> VideoIndex:
        return self._index

    def frames(
        self,
        indices: Indices,
        *,
        size: Size | None = None,
        crop: Crop | None = None,
        out: UInt8[np.ndarray, "T h w C"] | None = None,
    ) -> UInt8[np.ndarray, "T h w C"]:
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
        numbers = checked_indices(indices, self._index.frames)
        self._announce(numbers)
        try:
            for first in range(0, len(numbers), block_frames):
                yield self.frames(numbers[first : first + block_frames], size=size, crop=crop)
        finally:
            self._announce([])

    def _announce(self, numbers: Sequence[int]) -> None:  # noqa: B027 - most backends need no warning
        """These frames will be asked for by the next calls."""

    def at(
        self, seconds: Seconds, *, size: Size | None = None, crop: Crop | None = None
    ) -> UInt8[np.ndarray, "T h w C"]:
        return self.frames(self._index.shown_at(seconds), size=size, crop=crop)

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _pictures(
        self, wanted: dict[int, list[Crop | None]], size: Size | None
    ) -> Iterator[tuple[int, Crop | None, UInt8[np.ndarray, "h w C"]]]:
        """Number, crop and picture of each frame in `wanted`, whose numbers ascend, in each of its crops; in any order.

        Raises:
            DecodeError: a frame cannot be decoded.
        """
        ...

    def _fill(
        self, clips: list[list[int]], out: list[np.ndarray], size: Size | None, crops: Sequence[Crop | None]
    ) -> None:
        places: dict[int, dict[Crop | None, list[np.ndarray]]] = {}
        for clip, pictures, crop in zip(clips, out, crops, strict=True):
            for number, target in zip(clip, pictures, strict=True):
                places.setdefault(number, {}).setdefault(crop, []).append(target)
        try:
            for number, crop, picture in self._pictures({n: list(places[n]) for n in sorted(places)}, size):
                for target in places[number].pop(crop):
                    target[...] = picture
        except DecodeError as error:
            raise error.named(error.key, error.url or self._url) from error
        missing = [number for number, crops in places.items() if crops]
        if missing:
            raise DecodeError(
                "missing frame", f"frame {min(missing)} is in the index and was not decoded", url=self._url
            )

    def _shape(self, size: Size | None, crop: Crop | None) -> tuple[int, int, int]:
        """h, w, C of the pictures handed out. Raises DecodeError for a crop beyond the picture."""
        height, width = self._index.height, self._index.width
        if crop is not None:
            top, left, tall, wide = crop
            if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > height or left + wide > width:
                raise DecodeError(
                    "out of range", f"crop {crop} reaches beyond a picture of {(height, width)}", url=self._url
                )
            height, width = tall, wide
        return (*(size or (height, width)), 3)
