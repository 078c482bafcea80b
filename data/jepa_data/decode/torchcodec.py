"""torchcodec, in exact mode: PyTorch's decoder, on the FFmpeg that the system has.

Approximate mode is not offered: it returns wrong frames where the rate varies. The time stamp of every frame that it
hands out is compared with the index. Its seeks end in an error or at another frame in some files, which are refused
when they are opened: open groups of pictures in H.264, a moving refresh, fragmented mp4, MPEG-TS, MPEG-PS, AVI, and
images that change their size. It does not say when FFmpeg patched up an image. A call cannot be interrupted:
`Limits.timeout_seconds` holds for opening only.

Cropping and scaling are done on its RGB images: its own transforms took 15 % more time than that for a resize, and
three times as much for a crop (0.17, 360p to 224, one thread).
"""

import numpy as np

from jepa_data.decode.base import Crop, Limits, Size, Source, VideoIndex, check_count, refuse
from jepa_data.decode.pyav import PacketIndexBackend
from jepa_data.decode.reader import Images, Reader
from jepa_data.decode.scale import Scaler
from jepa_data.errors import DataError, DecodeError

try:
    from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportPrivateImportUsage]
except (ImportError, OSError, RuntimeError) as error:  # the last two: it is there, and finds no FFmpeg
    raise DataError(
        "backend: torchcodec cannot be used: it is not installed (pip install torchcodec), is of another version of "
        "torch, or finds no FFmpeg (apt install ffmpeg). Or use data.backend=pyav"
    ) from error

HARMLESS = ("an edit list", "colors of more than 8 bits")
PIECE = 16  # frames decoded at a time: it hands out all frames of a call at once, at full size


class TorchCodecReader(Reader):
    """See `Reader`.

    Raises:
        DecodeError: "not supported" where torchcodec cannot reach every frame.
    """

    def __init__(self, src: Source, index: VideoIndex, limits: Limits) -> None:
        super().__init__(src, index, limits)
        harmless = (*HARMLESS, "open groups of pictures") if index.codec == "hevc" else HARMLESS
        refuse("torchcodec", [hazard for hazard in index.hazards or () if hazard not in harmless], self._url)
        try:
            self._video = VideoDecoder(
                src if isinstance(src, bytes) else f"file:{src}",
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                seek_mode="exact",
            )
        except (RuntimeError, ValueError) as error:
            raise _decode_error(error, self._url) from error
        check_count("torchcodec", len(self._video), index, self._url)
        self._times = index.pts * float(index.time_base)
        self._scaler = Scaler()

    def close(self) -> None:
        self._video = None

    def _images(self, wanted: dict[int, list[Crop | None]], size: Size | None) -> Images:
        if self._video is None:
            raise ValueError("the reader is closed")
        numbers = list(wanted)
        for first in range(0, len(numbers), PIECE):
            piece = numbers[first : first + PIECE]
            try:
                batch = self._video.get_frames_at(piece)
            except (RuntimeError, ValueError, IndexError) as error:
                raise _decode_error(error, self._url) from error
            wrong = np.abs(batch.pts_seconds.numpy() - self._times[piece]) > 1e-6
            if wrong.any():
                number = piece[int(wrong.argmax())]
                raise DecodeError("not supported", f"torchcodec did not return frame {number}. Use data.backend=pyav")
            images = batch.data.numpy()
            if images.shape[1:3] != (self._index.height, self._index.width):
                raise DecodeError("changed size", f"its images are of {images.shape[2]}x{images.shape[1]}")
            for number, image in zip(piece, images, strict=True):
                for crop in wanted[number]:
                    yield number, crop, self._scaler.rgb(image, size, crop)


class TorchCodecBackend(PacketIndexBackend):
    """See `VideoBackend`."""

    name = "torchcodec"
    reader = TorchCodecReader


def _decode_error(error: Exception, url: str) -> DecodeError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DecodeError("damaged", f"torchcodec: {said} If data.backend=pyav reads it, use that", url=url)
