"""Opens a video with FFmpeg, and indexes it from its packets.

Only containers and codecs of video are opened: FFmpeg also knows play lists and scripts, which name other files and
addresses. A pass over the packets decodes nothing; only the first image is decoded, for its size.
"""

import io
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import av
import numpy as np
from av.container import InputContainer
from av.error import EOFError as EndOfFile
from av.error import ExitError, FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from jepa_data.decode.base import DAMAGED, Limits, Source, VideoIndex, first_bytes, turned, url_of
from jepa_data.decode.boxes import check_whole
from jepa_data.decode.units import Units
from jepa_data.errors import DecodeError

# FFmpeg comments on broken files through Python's logging; here a broken file is reported once, as a DecodeError.
logging.getLogger("libav").setLevel(logging.CRITICAL)

CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,flv,ogg,asf,mxf,wav,mp3,aac,flac"

# FFmpeg decodes up to 7 frames of H.264 to find out what an mp4 says already: the size, and how far frames are
# reordered. This took a tenth of the time that a clip took.
UNPROBED = {"analyzeduration": "1"}
TRACKS = 4  # that are given this setting; one of them holds the images


class Deadline:
    """Ends what takes too long. Raises DecodeError ("timeout") when asked after the time is over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """The time begins again: each call that decodes has all of it."""
        self._end = time.monotonic() + self._seconds

    def check(self) -> None:
        if time.monotonic() > self._end:
            raise DecodeError("timeout", f"it took more than {self._seconds:g} seconds (limits.timeout_seconds)")


def open_video(src: Source, limits: Limits, index: VideoIndex | None = None) -> tuple[InputContainer, VideoStream]:
    """The container, and its image track, to be decoded by one thread. Raises DecodeError.

    Args:
        index: of this video, where it is known: then FFmpeg need not decode its first frames to learn what they are.
    """
    url = url_of(src)
    head = first_bytes(src, limits)
    known = index is not None and index.codec == "h264" and not index.hazards and head[4:8] == b"ftyp"
    try:
        container = av.open(
            # "file:" keeps a name such as "http:x" or "pipe:0" from being anything but a file.
            io.BytesIO(src) if isinstance(src, bytes) else f"file:{src}",
            "r",
            options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"} | (UNPROBED if known else {}),
            stream_options=[{"skip_frame": "all"}] * TRACKS if known else None,  # pyright: ignore
            metadata_errors="replace",
            timeout=limits.timeout_seconds,
        )
    except (FFmpegError, ValueError) as error:
        if isinstance(error, ExitError):
            raise DecodeError("timeout", f"opening took more than {limits.timeout_seconds:g} s", url=url) from error
        check_whole(src)
        if head[4:8] == b"ftyp":
            raise DecodeError("truncated", "it begins as an mp4 and its index is missing", url=url) from error
        raise DecodeError("not a video", "FFmpeg finds none of the containers that are read", url=url) from error
    try:
        return container, _video_track(container, limits)
    except DecodeError as error:
        container.close()
        raise error.named("", url) from error


def packets(container: InputContainer, stream: VideoStream, deadline: Deadline) -> Iterator[Packet]:
    """The packets of the image track, and at the end an empty one, which makes a decoder hand out what it holds.

    Those of other tracks are passed over here, so that a file that is full of them is left in time, too.
    """
    try:
        for packet in container.demux():
            deadline.check()
            # `packet.stream_index` of the empty ones is always 0.
            if packet.stream.index == stream.index:
                yield packet
    except IndexError:
        # PyAV has no stream for a track that first appears inside a damaged or joined file, and stumbles over it after
        # all others have ended.
        return


def decode_error(error: FFmpegError | DecodeError, url: str) -> DecodeError:
    """What FFmpeg says, under the names used here."""
    if isinstance(error, DecodeError):
        return error.named(error.key, error.url or url)
    if isinstance(error, ExitError):
        return DecodeError("timeout", "reading it took too long (limits.timeout_seconds)", url=url)
    at_end = isinstance(error, EndOfFile)
    return DecodeError("truncated" if at_end else "damaged", f"FFmpeg: {error.strerror}", url=url)


def build_index(src: Source, container: InputContainer, stream: VideoStream, limits: Limits) -> VideoIndex:
    """The index of a video that was just opened; leaves it in the middle. Raises DecodeError or FFmpegError."""
    check_whole(src)
    deadline = Deadline(limits.timeout_seconds)
    scan = _look_through(container, stream, limits, deadline)
    frame, undecodable = _decode_head(container, stream, scan, deadline)
    pts = np.unique(np.array(scan.shown, np.int64))
    pts = pts[~np.isin(pts, list(undecodable))]
    keyframes = np.unique(np.array([time for time, hidden in scan.starts if not hidden], np.int64))
    limits.check_image(frame.width, frame.height)
    rotation = round(frame.rotation / 90) * 90 % 360
    height, width = turned((frame.height, frame.width), rotation // 90)
    assert stream.time_base is not None
    span = float(int(pts[-1] - pts[0]) * stream.time_base)
    limits.check_length(len(pts), span)
    rate = (len(pts) - 1) / span if span > 0 else float(stream.average_rate or 0)
    return VideoIndex(
        pts=pts,
        time_base=stream.time_base,
        keyframes=np.searchsorted(pts, keyframes),
        width=width,
        height=height,
        rotation=rotation,
        codec=stream.codec_context.codec.canonical_name,
        fps=round(rate, 6),
        hazards=_hazards(container, stream, scan),
    )


@dataclass
class _Scan:
    """What the packets say.

    Attributes:
        shown: times of the packets that hold a frame to be shown.
        starts: time of each packet that decoding can start from, and whether an edit list hides its frame.
        leading: times of frames that follow the first such packet in the file and are shown before it.
        hidden, refresh, open_groups: seen anywhere: a frame that is not shown; a keyframe that is none; a frame that
            is shown before the last keyframe before it in the file.
        damaged: a packet lacks data.
        changes: the parameters of the stream change in its middle.
        count: packets of the image track.
        first, end: when the first of them is shown, and the last is over.
    """

    shown: list[int] = field(default_factory=list)
    starts: list[tuple[int, bool]] = field(default_factory=list)
    leading: set[int] = field(default_factory=set)
    hidden: bool = False
    refresh: bool = False
    open_groups: bool = False
    damaged: bool = False
    changes: bool = False
    count: int = 0
    first: float = math.inf
    end: int = 0


def _look_through(container: InputContainer, stream: VideoStream, limits: Limits, deadline: Deadline) -> _Scan:
    scan = _Scan()
    units = Units(stream.codec_context)
    untimed = False
    for packet in packets(container, stream, deadline):
        if not packet.size:
            continue
        scan.count += 1
        limits.check_length(scan.count, 0.0)
        if packet.pts is None:
            untimed = True
            continue
        scan.first = min(scan.first, packet.pts)
        scan.end = max(scan.end, packet.pts + (packet.duration or 0))
        start = units.can_start(packet)
        scan.damaged |= not units.is_whole(packet)
        scan.refresh |= packet.is_keyframe and not start
        if start:
            scan.starts.append((packet.pts, packet.is_discard))
        elif not scan.starts:
            continue  # recorded from the middle: nothing before the first start can be decoded
        elif packet.pts < scan.starts[-1][0]:
            scan.open_groups |= len(scan.starts) > 1 or not packet.is_discard
            if len(scan.starts) == 1:
                scan.leading.add(packet.pts)
        scan.hidden |= packet.is_discard
        if not packet.is_discard:
            scan.shown.append(packet.pts)
    scan.changes = len(units.parameters) > 1
    if untimed:
        raise DecodeError("no time stamps", "frames cannot be distinguished. Remux it: ffmpeg -i IN -c copy OUT.mp4")
    if not scan.starts and scan.refresh:
        raise DecodeError("not supported", "none of its images can be decoded by itself. Re-encode it with ffmpeg")
    if not scan.starts or not scan.shown or stream.time_base is None:
        raise DecodeError("truncated", "it holds no image that can be decoded")
    _check_times(stream, scan)
    return scan


def _check_times(stream: VideoStream, scan: _Scan) -> None:
    """Raises DecodeError ("damaged") where the tables of a file contradict each other."""
    # An edit list may leave out frames at the end, and an AVI frames that repeat: then the times reach the end.
    duration = stream.duration or 0
    missing = duration - (scan.end - scan.first)
    if scan.count < stream.frames and missing > duration / stream.frames / 2:
        raise DecodeError("damaged", f"{scan.count} of {stream.frames} frames are there. Copy it again")
    # Frames that VP8 only decodes from, and never shows, are packets like all others.
    if len(set(scan.shown)) < len(scan.shown) and stream.codec_context.codec.canonical_name != "vp8":
        raise DecodeError("damaged", "two frames have the same time. Re-encode it with ffmpeg")


def _decode_head(
    container: InputContainer, stream: VideoStream, scan: _Scan, deadline: Deadline
) -> tuple[VideoFrame, set[int]]:
    """The first frame that is shown, and the times of those before the first start that do not come out whole.

    The head of a stream that was cut at an open group refers to images that are gone.
    """
    container.seek(scan.starts[0][0], stream=stream)
    doubtful = scan.leading & set(scan.shown)
    for frame in decoded(container, stream, deadline):
        if frame.pts in doubtful and not frame.is_corrupt:
            doubtful.discard(frame.pts)
        if frame.pts is not None and frame.pts >= scan.starts[0][0]:
            return frame, doubtful
    raise DecodeError("truncated", "its first image cannot be decoded")


def decoded(container: InputContainer, stream: VideoStream, deadline: Deadline) -> Iterator[VideoFrame]:
    """The frames from the first packet on that decoding can start from."""
    units = Units(stream.codec_context)
    started = False
    for packet in packets(container, stream, deadline):
        started = started or units.can_start(packet)
        if started:
            yield from packet.decode()


def _hazards(container: InputContainer, stream: VideoStream, scan: _Scan) -> tuple[str, ...]:
    names = container.format.name.split(",")
    mp4 = "mp4" in names
    pixels = stream.codec_context.format
    seen = {
        f"the {names[0]} container": not mp4 and "matroska" not in names,
        "an mp4 in fragments": mp4 and stream.frames != scan.count,
        "an edit list": scan.hidden,
        "open groups of pictures": scan.open_groups,
        "a moving refresh in place of keyframes": scan.refresh,
        DAMAGED: scan.damaged,
        "parameters that change in mid-stream": scan.changes,
        "colors of more than 8 bits": pixels is not None and pixels.components[0].bits > 8,
    }
    return tuple(name for name, there in seen.items() if there)


def _video_track(container: InputContainer, limits: Limits) -> VideoStream:
    stream = container.streams.best("video")  # not a cover image
    if not isinstance(stream, VideoStream):
        raise DecodeError("not a video", "it has no image track")
    context = stream.codec_context
    if context is None:
        raise DecodeError("not supported", "its codec is unknown to FFmpeg")
    limits.check_image(context.width, context.height)
    context.thread_type = "NONE"
    context.thread_count = 1
    context.options = {"max_pixels": str(limits.max_pixels)}
    return stream
