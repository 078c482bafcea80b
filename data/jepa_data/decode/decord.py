"""decord: fast, and right on H.264 in closed groups of pictures, which is what the packer writes.

On other files it returns a neighboring frame in silence. So the packets are looked at first (`VideoIndex.hazards`),
and what it is known to get wrong is refused: codecs other than H.264, HEVC, VP8 and VP9; rotation; edit lists and
stream-copied cuts; open groups of pictures; fragmented mp4; containers other than mp4 and Matroska (MPEG-TS, AVI);
H.264 and HEVC whose images change their size (it scales them in silence, those of VP8 and VP9 too).

decord bundles FFmpeg 4.1 (2018), paints over damage inside images without a word, and cannot be interrupted:
`Limits.timeout_seconds` holds for opening only. Damaged files can crash it, and the process with it: 12 of 400 did when
they were given to it as they are. The look at the packets turns those away, and none of the damaged files of the tests
crashes it any more. That is no proof, so decode what you do not trust with data.backend=pyav. decord has wheels for
Linux on x86-64 and for Windows.
"""

import ctypes
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch  # noqa: F401  before decord: the other order can crash with CUDA builds
from jaxtyping import UInt8

from jepa_data.decode.base import Crop, Limits, Size, Source, VideoIndex, check_count, refuse
from jepa_data.decode.pyav import PacketIndexBackend
from jepa_data.decode.reader import Images, Reader
from jepa_data.decode.scale import Scaler
from jepa_data.errors import DataError, DecodeError

_everybody = ctypes.RTLD_GLOBAL
try:
    # decord asks for its libraries to be seen by all. Its zlib then takes the place of others': pygame reads no PNG.
    ctypes.RTLD_GLOBAL = ctypes.RTLD_LOCAL
    import decord
except ImportError as error:
    raise DataError(
        "backend: decord is not installed. Install it (pip install decord; Linux x86-64 and Windows only), or use "
        "data.backend=pyav"
    ) from error
finally:
    ctypes.RTLD_GLOBAL = _everybody

CODECS = ("h264", "hevc", "vp8", "vp9")
HARMLESS = ("colors of more than 8 bits",)


class DecordReader(Reader):
    """See `Reader`. Normalization inside the decoder, so it opens the video once for each size asked for.

    Raises:
        DecodeError: "not supported" where decord would return other frames than those asked for.
    """

    def __init__(self, src: Source, index: VideoIndex, limits: Limits) -> None:
        super().__init__(src, index, limits)
        wrong = [hazard for hazard in index.hazards or () if hazard not in HARMLESS]
        if index.rotation:
            wrong.insert(0, f"a video turned by {index.rotation} degrees")
        if index.codec not in CODECS:
            wrong.insert(0, f"{index.codec} video")
        refuse("decord", wrong, self._url)
        self._videos: dict[Size, Any] = {}
        self._scaler = Scaler()

    def close(self) -> None:
        self._videos.clear()

    def _images(self, wanted: dict[int, list[Crop | None]], size: Size | None) -> Images:
        native = (self._index.height, self._index.width)
        # Whole images are scaled inside the decoder and parts of them here, whatever else is asked for beside them:
        # the pixels of a clip must not depend on its neighbors.
        whole = [number for number, crops in wanted.items() if None in crops]
        for number, image in self._decoded(whole, size or native):
            yield number, None, image
        parts = [number for number, crops in wanted.items() if any(crops)]
        for number, image in self._decoded(parts, native):
            for crop in filter(None, wanted[number]):
                yield number, crop, self._scaler.rgb(image, size, crop)

    def _decoded(self, numbers: list[int], size: Size) -> Iterator[tuple[int, UInt8[np.ndarray, "h w C"]]]:
        if not numbers:
            return
        try:
            images = self._video(size).get_batch(numbers).asnumpy()
        except (decord.DECORDError, RuntimeError) as error:  # the second: it does not open
            raise DecodeError("damaged", f"decord: {(str(error).splitlines() or ['?'])[-1]}") from error
        yield from zip(numbers, images, strict=True)

    def _video(self, size: Size) -> Any:
        if size not in self._videos:
            src = io.BytesIO(self._src) if isinstance(self._src, bytes) else str(self._src)
            height, width = size
            video = decord.VideoReader(src, ctx=decord.cpu(0), width=width, height=height, num_threads=1)
            check_count("decord", len(video), self._index, self._url)
            self._videos[size] = video
        return self._videos[size]


class DecordBackend(PacketIndexBackend):
    """See `VideoBackend`."""

    name = "decord"
    reader = DecordReader
