"""PyAV, the default decoder: right on every seekable file, because frames are found by their time stamps.

A pass over the packets (no decoding) gives the time of every frame and the keyframes. A frame is then reached by
seeking to the last keyframe shown at or before it, and is recognised by its time stamp: where a file's own seek table
is wrong, decoding starts earlier and never returns a neighbour. Pictures that nothing depends on are decoded only if
they are asked for.
"""

import io
import logging
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import InputContainer
from av.error import EOFError as EndOfFile
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Int64, UInt8

from jepa_data.decode.base import Crop, Size, Source, VideoIndex, checked_indices
from jepa_data.errors import DecodeError

# FFmpeg comments on broken files through Python's logging; here a broken file is reported once, as a DecodeError.
logging.getLogger("libav").setLevel(logging.CRITICAL)


class PyAVBackend:
    """See `VideoBackend`."""

    name = "pyav"

    def probe(self, src: Source) -> VideoIndex:
        with PyAVReader(src) as reader:
            return reader.index

    def open(self, src: Source, index: VideoIndex | None = None) -> "PyAVReader":
        return PyAVReader(src, index)


class PyAVReader:
    """See `Reader`. One decoding thread: workers are processes, and more threads in each cost CPU."""

    def __init__(self, src: Source, index: VideoIndex | None = None) -> None:
        self._src = src
        self._url = "" if isinstance(src, bytes) else str(src)
        self._scaler = Scaler()
        self._decoder: Iterator[tuple[int, VideoFrame]] | None = None
        self._next = 0  # no frame below this one can still come out of the decoder
        self._wanted: set[int] = set()
        self._container, self._stream = _open(src, self._url)
        try:
            self._index = index if index is not None else self._build_index()
        except (FFmpegError, DecodeError) as error:
            self.close()
            raise _decode_error(error, self._url) from error
        self._numbers = {pts: number for number, pts in enumerate(self._index.pts.tolist())}

    @property
    def index(self) -> VideoIndex:
        return self._index

    def frames(
        self, indices: Sequence[int] | Int64[np.ndarray, " T"], *, size: Size | None = None, crop: Crop | None = None
    ) -> UInt8[np.ndarray, "T h w C"]:
        numbers = checked_indices(indices, self._index.frames)
        pictures: dict[int, UInt8[np.ndarray, "h w C"]] = {}
        try:
            for number, frame in self._decode(sorted(set(numbers))):
                pictures[number] = self._scaler.picture(frame, size, crop)
        except (FFmpegError, DecodeError) as error:
            self._decoder = None
            raise _decode_error(error, self._url) from error
        return np.stack([pictures[number] for number in numbers])

    def close(self) -> None:
        self._decoder = None  # first: FFmpeg must not be called through an iterator of a closed file
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _build_index(self) -> VideoIndex:
        stream = self._stream
        # Packets without data are the flush at the end; discarded ones are cut away by an edit list.
        packets = [p for p in self._container.demux(stream) if p.size > 0 and not p.is_discard]
        times = [p.pts for p in packets if p.pts is not None]
        if len(times) < len(packets):
            raise DecodeError("no time stamps", "frames cannot be told apart. Remux it: ffmpeg -i IN -c copy OUT.mp4")
        keyframes = np.unique(np.array([p.pts for p in packets if p.is_keyframe], np.int64))
        if not len(keyframes) or stream.time_base is None:
            raise DecodeError("truncated", "it holds no picture that can be decoded")
        pts = np.unique(np.array(times, np.int64))
        self._seek(int(keyframes[0]))
        decoder = self._container.decode(stream)
        frame = next(decoder, None)
        del decoder
        if frame is None:
            raise DecodeError("truncated", "its first picture cannot be decoded")
        rotation = _rotation(frame)
        height, width = (frame.height, frame.width) if rotation % 180 == 0 else (frame.width, frame.height)
        span = float((pts[-1] - pts[0]) * stream.time_base)
        rate = (len(pts) - 1) / span if span > 0 else float(stream.average_rate or 0)
        self._seek(int(keyframes[0]))
        return VideoIndex(
            pts=pts,
            time_base=stream.time_base,
            keyframes=np.searchsorted(pts, keyframes),
            width=width,
            height=height,
            rotation=rotation,
            codec=stream.codec_context.name,
            fps=round(rate, 6),
        )

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The wanted frames, ascending; seeks where that saves decoding."""
        self._wanted = set(wanted)
        for number in wanted:
            keyframe = int(np.searchsorted(self._index.keyframes, number, side="right")) - 1
            ahead = keyframe >= 0 and self._index.keyframes[keyframe] > self._next
            if self._decoder is None or number < self._next or ahead:
                self._restart(keyframe)
            while (frame := self._advance(number)) is None:
                # The seek landed behind the frame: start a keyframe earlier, in the end at the first packet.
                if keyframe < 0:
                    raise DecodeError("missing frame", f"frame {number} is in the index and was not decoded")
                keyframe -= 1
                self._restart(keyframe)
            yield number, frame

    def _advance(self, number: int) -> VideoFrame | None:
        """Decode up to frame `number`; None if the decoder is already past it or ends before."""
        assert self._decoder is not None
        for found, frame in self._decoder:
            self._next = found + 1
            if found == number:
                if frame.is_corrupt:
                    raise DecodeError("damaged", f"frame {number} is incomplete")
                return frame
            if found > number:
                break
        return None

    def _restart(self, keyframe: int) -> None:
        """Start decoding at the keyframe of this number; -1 is the first packet, whatever it is."""
        untouched, self._decoder = self._decoder is None and self._next == 0, None
        if keyframe >= 0:
            self._next = int(self._index.keyframes[keyframe])
            if not (untouched and self._next == 0):
                self._seek(int(self._index.pts[self._next]))
        else:
            self._container.close()
            self._container, self._stream = _open(self._src, self._url)
            self._next = 0
        self._decoder = self._run()

    def _seek(self, pts: int) -> None:
        self._container.seek(pts, stream=self._stream)

    def _run(self) -> Iterator[tuple[int, VideoFrame]]:
        """Number and picture of each frame that comes out of the decoder, in the order shown."""
        context = self._stream.codec_context
        for packet in self._container.demux(self._stream):
            skippable = packet.pts is not None and self._numbers.get(packet.pts) not in self._wanted
            context.skip_frame = "NONREF" if skippable else "DEFAULT"
            for frame in packet.decode():
                number = self._numbers.get(frame.pts) if frame.pts is not None else None
                if number is not None:
                    yield number, frame


class Scaler:
    """Decoded picture to RGB: turned upright, cropped, then scaled. Keeps FFmpeg's tables between frames."""

    def __init__(self) -> None:
        self._direct, self._second = VideoReformatter(), VideoReformatter()

    def picture(self, frame: VideoFrame, size: Size | None, crop: Crop | None) -> UInt8[np.ndarray, "h w C"]:
        rotation = _rotation(frame)
        if rotation == 0 and crop is None:
            return _to_rgb(self._direct, frame, size)
        rgb = _to_rgb(self._direct, frame, None)
        return self.rgb(np.rot90(rgb, rotation // 90), size, crop)

    def rgb(
        self, picture: UInt8[np.ndarray, "h w C"], size: Size | None, crop: Crop | None
    ) -> UInt8[np.ndarray, "H W C"]:
        """An RGB picture, cropped, then scaled."""
        if crop is not None:
            top, left, height, width = crop
            if top < 0 or left < 0 or top + height > picture.shape[0] or left + width > picture.shape[1]:
                raise DecodeError("out of range", f"crop {crop} reaches beyond a picture of {picture.shape[:2]}")
            picture = picture[top : top + height, left : left + width]
        if size is None or size == picture.shape[:2]:
            return np.ascontiguousarray(picture)
        return _to_rgb(self._second, VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"), size)


def _to_rgb(scaler: VideoReformatter, frame: VideoFrame, size: Size | None) -> UInt8[np.ndarray, "h w C"]:
    height, width = size or (frame.height, frame.width)
    # FFmpeg's own default, one thread per core, takes four times the CPU on small pictures.
    rgb = scaler.reformat(frame, width, height, "rgb24", interpolation=Interpolation.BICUBIC, threads=1)
    picture = rgb.to_ndarray()
    assert picture.dtype == np.uint8
    return picture


def _rotation(frame: VideoFrame) -> int:
    """Degrees counter-clockwise by which the stored picture is turned to be shown."""
    return round(frame.rotation / 90) * 90 % 360


def _open(src: Source, url: str) -> tuple[InputContainer, VideoStream]:
    head = _first_bytes(src)
    if not head:
        raise DecodeError("empty", "it has 0 bytes", url=url)
    try:
        container = av.open(io.BytesIO(src) if isinstance(src, bytes) else str(src), "r", metadata_errors="replace")
    except FFmpegError as error:
        if head[4:] == b"ftyp":
            raise DecodeError("truncated", "it begins as an mp4 and its index is missing", url=url) from error
        raise DecodeError("not a video", "FFmpeg does not recognise it", url=url) from error
    if not container.streams.video:
        container.close()
        raise DecodeError("not a video", "it has no picture track", url=url)
    stream = container.streams.video[0]
    if stream.codec_context is None:
        container.close()
        raise DecodeError("not supported", "its codec is unknown to FFmpeg", url=url)
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return container, stream


def _first_bytes(src: Source) -> bytes:
    if isinstance(src, bytes):
        return src[:8]
    try:
        with open(src, "rb") as file:
            return file.read(8)
    except OSError as error:
        raise DecodeError("missing", f"the file cannot be read ({error.strerror})", url=str(src)) from error


def _decode_error(error: FFmpegError | DecodeError, url: str) -> DecodeError:
    if isinstance(error, DecodeError):
        return error.named(error.key, error.url or url)
    ended = isinstance(error, EndOfFile)
    return DecodeError("truncated" if ended else "damaged", f"FFmpeg: {error.strerror}", url=url)
