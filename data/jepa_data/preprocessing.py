"""Whatever a user brings, as the clips that a model was trained on: one rule for every way in.

    a file, its bytes ──→ frames at the model's rate ─┐  decoded, cropped and scaled by FFmpeg
    tensors, numpy, PIL, a list of frames ────────────┴→ middle square → image_size → uint8 [B, T, C, h, w] → normalized

`Preprocessing` says how, and is part of a model (model.json). The loader of the shards crops by the same function
(`fitted_box`), so that a model sees in use what it saw in training. Arrays are taken at the model's rate as they are.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from jepa.config import CHECKED
from jepa.config.fields import Count, Positive
from jepa_data.decode import Limits, Reader, get_backend
from jepa_data.decode.image import decode_image, is_image, probe_image
from jepa_data.errors import DataError
from jepa_data.sampling import clip_indices, fitted_box
from jepa_data.transforms import normalize

Fit = Literal["crop", "stretch"]
LAYOUTS = (
    "expected RGB video [B, T, 3, h, w], one clip [T, 3, h, w] or one image [3, h, w], channels first or last, uint8 "
    "0..255 or float 0..1; a PIL image; a list of frames; or a file"
)
END_SLACK = 4e-4  # seconds: times are rounded to ticks, so the last frame may seem to come a little early
OVERSHOOT = 1e-3  # of floats beyond 0..1 after resizing
WIDE = (torch.uint16, torch.uint32, torch.uint64)  # torch does not compute with them
BLOCK_FRAMES = 128  # decoded and held at once


@dataclass(frozen=True)
class Preprocessing:
    """What a model was trained on.

    Attributes:
        image_size: side in pixels of its square images.
        fps: frames a second.
        mean, std: normalize pixels in 0..1, channel by channel.
        fit: how other shapes become square: their middle part, or all of it out of proportion.
        shortest_edge: with `crop`, the short side is scaled to this before the middle `image_size` square is cut; None:
            to `image_size`, so that the square is as large as the image allows.
        clip_frames: frames of its clips; longer files are read in clips of so many. None: a file is one clip.
    """

    __pydantic_config__ = CHECKED

    image_size: Count
    fps: Positive
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    fit: Fit = "crop"
    shortest_edge: Count | None = None
    clip_frames: Count | None = None

    def __call__(
        self, video: UInt8[Tensor, "B T 3 h w"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B T 3 H W"]:
        """What an encoder reads: cropped, scaled (bicubic, antialiased) and normalized, on the device of `video`."""
        return self.normalized(self.fitted(video), dtype)

    def normalized(
        self, clips: UInt8[Tensor, "B T 3 H W"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B T 3 H W"]:
        """The same of clips that were fitted already, by the loader or by `VideoFile.clips`."""
        return normalize(clips, self.mean, self.std, dtype)

    def fitted(self, video: UInt8[Tensor, "B T 3 h w"]) -> UInt8[Tensor, "B T 3 H W"]:
        """Cropped and scaled to the model's size."""
        size = (self.image_size, self.image_size)
        box = self.box(video.shape[-2], video.shape[-1])
        if box is not None:
            top, left, height, width = box
            video = video[..., top : top + height, left : left + width]
        if video.shape[-2:] == size:
            return video
        images = F.interpolate(video.flatten(0, 1).float(), size, mode="bicubic", antialias=True)
        return images.round().clamp(0, 255).to(torch.uint8).unflatten(0, video.shape[:2])

    def box(self, height: int, width: int) -> tuple[int, int, int, int] | None:
        """The part of an image that is seen: top, left, height, width; None: all of it."""
        return fitted_box(height, width, self.image_size, self.fit, self.shortest_edge)


@dataclass(frozen=True)
class VideoFile:
    """An open video or image, at a model's rate and size.

    Attributes:
        frames: how many it has at the model's rate.
        is_image: it is a still image.
    """

    frames: int
    is_image: bool
    _reader: Reader | None
    _numbers: np.ndarray
    _preprocessing: Preprocessing
    _image: UInt8[Tensor, "1 1 3 h w"] | None = None

    def clips(self, clip_frames: int | None = None, limit: int | None = None) -> Iterator[UInt8[Tensor, "K n 3 h w"]]:
        """All frames in order, in clips of `clip_frames` and then a shorter one; some clips of a length at a time.

        Args:
            clip_frames: None: all frames in one clip.
            limit: stop after so many frames.

        Raises:
            DecodeError: a frame cannot be decoded, or the decoding of a block takes too long.
        """
        total = min(self.frames, limit or self.frames)
        if self._image is not None:
            yield self._image
            return
        assert self._reader is not None
        length = min(clip_frames or total, total)
        together = max(1, BLOCK_FRAMES // length) * length
        size = (self._preprocessing.image_size, self._preprocessing.image_size)
        index = self._reader.index
        box = self._preprocessing.box(index.height, index.width)
        for block in self._reader.blocks(self._numbers[:total], together, size=size, crop=box):
            video = torch.from_numpy(block).permute(0, 3, 1, 2)
            whole = len(video) // length * length
            if whole:
                yield video[:whole].unflatten(0, (-1, length))
            if whole < len(video):
                yield video[None, whole:]


@contextmanager
def open_video(source: bytes | Path, preprocessing: Preprocessing, limits: Limits | None = None) -> Iterator[VideoFile]:
    """A video or image, by its content, to be read at a model's rate and size with bounded memory.

    Raises:
        DecodeError: it cannot be read.
    """
    limits = limits or Limits()
    if not isinstance(source, bytes) and re.match(r"[a-z0-9+]+:/", str(source)):
        raise DataError(f"{source}: an address, and files of this machine are read; download it first")
    if is_image(source):
        data = source if isinstance(source, bytes) else source.read_bytes()
        index = probe_image(data, limits)
        box = preprocessing.box(index.height, index.width)
        size = (preprocessing.image_size, preprocessing.image_size)
        image = decode_image(data, size=size, crop=box, limits=limits)
        still = torch.from_numpy(image).permute(2, 0, 1)[None, None]
        yield VideoFile(1, True, None, np.zeros(1, np.int64), preprocessing, still)
        return
    backend = get_backend("pyav")
    index = backend.probe(source, limits)
    # As many frames as fit: 1.0 s of video at 10 fps, its last frame shown at 0.9 s, gives 10.
    count = int((index.seconds[-1] + END_SLACK) * preprocessing.fps) + 1
    numbers = clip_indices(index.seconds, 0, count, preprocessing.fps)
    with backend.open(source, index, limits) as reader:
        yield VideoFile(count, False, reader, numbers, preprocessing)


def as_video(images: Any) -> tuple[UInt8[Tensor, "B T 3 h w"], bool]:
    """Images in memory as uint8 video [B, T, 3, h, w], and whether it is one still image.

    Args:
        images: a torch tensor or numpy array of [B, T, 3, h, w], [T, 3, h, w] (one clip) or [3, h, w] (one image),
            channels first or last; a PIL image; or a list of frames of one size, each an image or array of [h, w, 3]
            or [3, h, w]. Integers are 0..255, floats 0..1 (rounded to 255 levels). Where the third axis is 3 as well
            as the last, channels are first.

    Raises:
        DataError: anything else: it says what was expected and found. Nothing is guessed: floats outside 0..1 may be
            0..255 or normalized already.
    """
    if isinstance(images, list | tuple):
        return _frames(images), False
    array = _channels_first(_array(images))
    return _levels(array[(None,) * (5 - array.ndim)]), array.ndim == 3


def _frames(images: Sequence[Any]) -> UInt8[Tensor, "1 T 3 h w"]:
    if not images:
        raise DataError(f"the list of frames is empty; {LAYOUTS}")
    frames = [_channels_first(_array(image)) for image in images]
    for number, frame in enumerate(frames):
        if frame.ndim != 3 or frame.shape != frames[0].shape or frame.dtype != frames[0].dtype:
            raise DataError(
                f"a list holds the frames of one clip, alike in size and kind: frame 0 is {_summary(frames[0])}, "
                f"frame {number} {_summary(frame)}"
            )
    return _levels(torch.stack(frames)[None])


def _array(images: Any) -> Tensor:
    if isinstance(images, Tensor):
        return images.to(torch.int64) if images.dtype in WIDE else images
    if isinstance(images, np.ndarray):
        if images.dtype.kind not in "uif" or images.dtype.itemsize > 8:
            raise DataError(f"found a numpy array of {images.dtype}; {LAYOUTS}")
        kind = np.dtype(np.int64) if images.dtype.kind == "u" and images.dtype.itemsize > 1 else images.dtype
        return torch.from_numpy(np.ascontiguousarray(images, kind.newbyteorder("=")))
    if hasattr(images, "convert") and hasattr(images, "mode"):  # a PIL image, without importing PIL
        from jepa_data.decode.image import upright_rgb

        if images.mode in ("F", "I") or getattr(images, "n_frames", 1) > 1:
            what = f"mode {images.mode}" if images.mode in ("F", "I") else f"{images.n_frames} frames"
            raise DataError(f"found a PIL image of {what}; give one of mode RGB or L, or a list of its frames")
        return torch.from_numpy(np.array(upright_rgb(images)))
    raise DataError(f"found {type(images).__name__}; {LAYOUTS}")


def _channels_first(array: Tensor) -> Tensor:
    if array.ndim in (3, 4, 5):
        if array.shape[-3] == 3:
            return array
        if array.shape[-1] == 3:
            return array.movedim(-1, -3)
    advice = ""
    if array.ndim == 5 and array.shape[1] == 3:
        advice = ". This looks like [B, 3, T, h, w]: give video.transpose(1, 2)"
    elif array.ndim in (2, 3) or (array.ndim > 3 and 1 in (array.shape[-3], array.shape[-1])):
        advice = ". Repeat a gray channel three times"
    raise DataError(f"found {_summary(array)}; {LAYOUTS}{advice}")


def _levels(video: Tensor) -> UInt8[Tensor, "B T 3 h w"]:
    """Numbers as 0..255."""
    if not video.numel():
        raise DataError(f"found {_summary(video)}, which holds no pixels; {LAYOUTS}")
    if video.dtype == torch.uint8:
        return video
    if video.dtype == torch.bool or video.is_complex():
        raise DataError(f"found {_summary(video)}; {LAYOUTS}")
    if video.is_floating_point():
        _check_range(video, -OVERSHOOT, 1 + OVERSHOOT, "floats are read as 0..1")
        return (video.float().clamp(0, 1) * 255).round().to(torch.uint8)
    _check_range(video, 0.0, 255.0, "integers are read as 0..255")
    return video.to(torch.uint8)


def _check_range(video: Tensor, lowest: float, highest: float, rule: str) -> None:
    low = float(video.min())
    high = float(video.max())
    if not lowest <= low <= high <= highest:  # false where there is NaN
        raise DataError(
            f"{rule}, found {low:g}..{high:g}. Give pixels before they are normalized, as uint8 0..255 or float 0..1"
        )


def _summary(array: Tensor) -> str:
    return f"{str(array.dtype).removeprefix('torch.')} {list(array.shape)}"
