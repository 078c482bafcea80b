"""PyAV, the default decoder: right on every seekable file, because frames are found by their time stamps.

A pass over the packets (no decoding) gives the time of every frame and the keyframes. A frame is then reached by
seeking to the last keyframe shown at or before it, and is recognized by its time stamp: where a file's own seek table
is wrong, decoding starts earlier and never returns a neighbor. Images that nothing depends on are decoded only if
they are asked for. An image that FFmpeg patched up, and any that was made from it, is an error.
"""

from collections.abc import Iterator, Sequence, Set

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame

from jepa_data.decode.base import LIMITS, Crop, Limits, Size, Source, VideoIndex, first_bytes, turned, url_of
from jepa_data.decode.packets import Deadline, build_index, decode_error, open_video, packets
from jepa_data.decode.reader import Images, Reader
from jepa_data.decode.scale import Scaler
from jepa_data.decode.units import Units
from jepa_data.errors import DecodeError


class PyAVBackend:
    """See `VideoBackend`."""

    name = "pyav"

    def probe(self, src: Source, limits: Limits = LIMITS) -> VideoIndex:
        with PyAVReader(src, None, limits) as reader:
            return reader.index

    def open(self, src: Source, index: VideoIndex | None = None, limits: Limits = LIMITS) -> Reader:
        return PyAVReader(src, index, limits)


class PyAVReader(Reader):
    """See `Reader`. One decoding thread: workers are processes, and more threads in each cost CPU.

    Attributes:
        decoded: frames that came out of the decoder so far.
    """

    def __init__(self, src: Source, index: VideoIndex | None = None, limits: Limits = LIMITS) -> None:
        self.decoded = 0
        self._scaler = Scaler()
        self._decoder: Iterator[tuple[int, VideoFrame]] | None = None
        self._next = 0  # no frame below this one can still come out of the decoder
        self._start = 0  # frames from here on come out whole
        self._fresh = index is not None  # nothing was read from the container yet
        self._wanted: Set[int] = frozenset()
        self._announced: frozenset[int] = frozenset()  # will be wanted by later calls, so they are decoded on the way
        self._doubtful = range(0)  # frames that lost data in the container may have spoilt
        self._container, self._stream = open_video(src, limits, index)
        self._units = Units(self._stream.codec_context)
        try:
            index = index or build_index(src, self._container, self._stream, limits)
        except (FFmpegError, DecodeError) as error:
            self.close()
            raise decode_error(error, url_of(src)) from error
        super().__init__(src, index, limits)
        self._deadline = Deadline(limits.timeout_seconds)
        self._numbers: dict[int | None, int] = {pts: number for number, pts in enumerate(index.pts.tolist())}
        self._stored = turned((index.height, index.width), index.rotation // 90)

    def close(self) -> None:
        self._decoder = None  # first: FFmpeg must not be called through an iterator of a closed file
        self._container.close()

    def _announce(self, numbers: Sequence[int]) -> None:
        self._announced = frozenset(numbers)

    def _images(self, wanted: dict[int, list[Crop | None]], size: Size | None) -> Images:
        self._deadline.renew()
        try:
            for number, frame in self._decode(list(wanted)):
                if (frame.height, frame.width) != self._stored:
                    sizes = f"{frame.width}x{frame.height} in place of {self._stored[1]}x{self._stored[0]}"
                    raise DecodeError("changed size", f"from frame {number} on the images are {sizes}. Cut it there")
                for crop in wanted[number]:
                    yield number, crop, self._scaler.image(frame, self._index.rotation // 90, size, crop)
        except (FFmpegError, DecodeError) as error:
            self._decoder = None
            raise decode_error(error, self._url) from error

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The wanted frames, ascending; seeks where that saves decoding."""
        self._wanted = self._announced.union(wanted)
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
        for decoded, frame in self._decoder:
            self._next = decoded + 1
            if (frame.is_corrupt and decoded >= self._start) or decoded in self._doubtful:
                raise DecodeError("damaged", f"frame {decoded} is incomplete")
            if decoded == number:
                return frame
            if decoded > number:
                break
        return None

    def _restart(self, keyframe: int) -> None:
        """Start decoding at the keyframe of this number; -1 is the first packet, whatever it is."""
        self._decoder = None
        self._start = self._next = int(self._index.keyframes[keyframe]) if keyframe >= 0 else 0
        if keyframe >= 0 and not (self._fresh and self._next == 0):
            self._container.seek(int(self._index.pts[self._next]), stream=self._stream)
        elif not self._fresh:
            self._container.close()
            self._container, self._stream = open_video(self._src, self._limits, self._index)
        self._fresh = False
        self._doubtful = range(0)
        self._decoder = self._run()

    def _run(self) -> Iterator[tuple[int, VideoFrame]]:
        """Number and image of each frame that comes out of the decoder, in the order shown."""
        started = False
        context = self._stream.codec_context
        skipping = ""
        # Decoders of other libraries, such as dav1d, take this setting when they are opened, and for good.
        outside = context.codec.name.startswith("lib")
        for packet in packets(self._container, self._stream, self._deadline):
            is_start = self._units.can_start(packet)
            started = started or is_start
            if not started:
                continue
            in_packet = self._numbers.get(packet.pts)
            self._doubt(in_packet, not self._units.is_whole(packet), is_start)
            needed = outside or packet.pts is None or in_packet in self._wanted
            if skipping != (skipping := "DEFAULT" if needed else "NONREF"):
                context.skip_frame = skipping
            for frame in packet.decode():
                self.decoded += 1
                number = self._numbers.get(frame.pts)
                if number is not None:
                    yield number, frame

    def _doubt(self, number: int | None, is_corrupt: bool, is_start: bool) -> None:
        """Keep in mind which frames a packet without all its data spoils: those from there to the next start.

        packets   P0 B2 B1 P4(!) B3 K5 ...     numbers in the order shown
        spoilt             3 4                 B3 is made from P4
        """
        open_end = self._index.frames
        in_doubt = len(self._doubtful) > 0 and self._doubtful.stop == open_end
        if number is None or not (is_corrupt or in_doubt):
            return
        if is_start and not is_corrupt:
            self._doubtful = range(self._doubtful.start, number)
        else:
            self._doubtful = range(min([number, *self._doubtful[:1]]), open_end)


class PacketIndexBackend(PyAVBackend):
    """Takes PyAV's index, and refuses by it what it is known to get wrong. A backend adds its name and its reader."""

    reader: type[Reader]

    def open(self, src: Source, index: VideoIndex | None = None, limits: Limits = LIMITS) -> Reader:
        first_bytes(src, limits)
        if index is None or index.hazards is None:
            index = self.probe(src, limits)
        return self.reader(src, index, limits)
