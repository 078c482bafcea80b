"""decord: fast, and right on H.264 in closed groups of pictures, which is what the packer writes.

On other files it can return a neighbouring frame in silence, so this backend opens H.264 only, and compares decord's
count of frames with the packet index. decord has wheels for Linux on x86-64 and for Windows.
"""

import io
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch  # noqa: F401  before decord: the other order can crash with CUDA builds
from jaxtyping import Int64, UInt8

from jepa_data.decode.base import Crop, Size, Source, VideoIndex, checked_indices
from jepa_data.decode.pyav import PyAVBackend, Scaler
from jepa_data.errors import DataError, DecodeError

try:
    import decord
except ImportError as error:
    raise DataError(
        "backend: decord is not installed. Install it (pip install decord; Linux x86-64 and Windows only), or use "
        "data.backend=pyav"
    ) from error


class DecordBackend:
    """See `VideoBackend`."""

    name = "decord"

    def probe(self, src: Source) -> VideoIndex:
        return PyAVBackend().probe(src)

    def open(self, src: Source, index: VideoIndex | None = None) -> "DecordReader":
        # Broken files can crash decord and the process with it; the pass over the packets turns them away by name.
        return DecordReader(src, self.probe(src) if index is None else index)


class DecordReader:
    """See `Reader`. Scales inside the decoder, so it opens the video once for each size asked for."""

    def __init__(self, src: Source, index: VideoIndex) -> None:
        self._src, self._index = src, index
        self._url = "" if isinstance(src, bytes) else str(src)
        if index.codec != "h264" or index.rotation:
            what = f"{index.codec} video" if index.codec != "h264" else "rotated video"
            raise DecodeError(
                "not supported", f"decord can return wrong frames of {what}. Use data.backend=pyav", url=self._url
            )
        self._videos: dict[Size, Any] = {}
        self._scaler = Scaler()

    @property
    def index(self) -> VideoIndex:
        return self._index

    def frames(
        self, indices: Sequence[int] | Int64[np.ndarray, " T"], *, size: Size | None = None, crop: Crop | None = None
    ) -> UInt8[np.ndarray, "T h w C"]:
        numbers = checked_indices(indices, self._index.frames)
        native = (self._index.height, self._index.width)
        try:
            pictures = self._video(native if crop is not None or size is None else size).get_batch(numbers).asnumpy()
        except decord.DECORDError as error:
            raise DecodeError("damaged", f"decord: {str(error).splitlines()[-1]}", url=self._url) from error
        if crop is None:
            return pictures
        return np.stack([self._scaler.rgb(picture, size, crop) for picture in pictures])

    def close(self) -> None:
        self._videos.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _video(self, size: Size) -> Any:
        if size not in self._videos:
            src = io.BytesIO(self._src) if isinstance(self._src, bytes) else str(self._src)
            height, width = size
            video = decord.VideoReader(src, ctx=decord.cpu(0), width=width, height=height, num_threads=1)
            if len(video) != self._index.frames:
                raise DecodeError(
                    "not supported",
                    f"decord counts {len(video)} frames of {self._index.frames}. Use data.backend=pyav",
                    url=self._url,
                )
            self._videos[size] = video
        return self._videos[size]
