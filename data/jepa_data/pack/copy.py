"""Videos as they are: whole files, or packets from one keyframe to another, without decoding.

A video can be cut before a keyframe only if no frame that is stored after it is shown before it: such a frame (an open
group of pictures) would be lost on one side and undecodable on the other.
"""

import io
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from jaxtyping import Int64

from jepa_data.decode import VideoIndex
from jepa_data.decode.base import Source
from jepa_data.errors import DecodeError
from jepa_data.pack.cuts import Interval
from jepa_data.pack.reencode import frame_seconds
from jepa_data.shards.manifest import VIDEOS

MP4_CODECS = ("h264", "hevc", "av1", "vp9", "mpeg4")
LARGEST = 2**31 - 2**20  # bytes: what is read back of a sample at most, less its other members
WITHOUT = "Leave out --copy to re-encode it"


def whole_file(src: Source, ending: str) -> tuple[bytes, str]:
    """The bytes of a video, and the ending to store it under. Raises DecodeError."""
    ending = {"m4v": "mp4"}.get(ending, ending)
    if ending not in VIDEOS:
        raise DecodeError("not supported", f".{ending} is not read from shards as it is. {WITHOUT}")
    if (size := len(src) if isinstance(src, bytes) else Path(src).stat().st_size) > LARGEST:
        raise DecodeError("too large", f"{size} bytes are too many for one sample. Cut it: --max-seconds 60")
    return contents(src), ending


def contents(src: Source) -> bytes:
    """The bytes of a file, which may be in memory already. Raises DecodeError for text that can be no file's name."""
    if isinstance(src, bytes):
        return src
    try:
        return Path(src).read_bytes()
    except ValueError as error:
        raise DecodeError("missing", f"no file can have this name ({error})") from error


def borders(src: Source, index: VideoIndex) -> Int64[np.ndarray, " K"]:
    """Numbers of the frames before which the video can be cut; its end is the last one. Raises DecodeError."""
    if index.codec not in MP4_CODECS:
        raise DecodeError("not supported", f"{index.codec} video cannot be cut without re-encoding. {WITHOUT}")
    with _opened(src) as container:
        packets = [(p.pts, p.is_keyframe) for p in container.demux(video=0) if p.size and not p.is_discard]
    times = np.array([pts for pts, _ in packets], np.int64)
    earliest_later = np.minimum.accumulate(times[::-1])[::-1]
    latest_before = np.concatenate([[times.min() - 1], np.maximum.accumulate(times)[:-1]])
    clean = np.array([key for _, key in packets]) & (earliest_later == times) & (latest_before < times)
    return np.append(np.searchsorted(index.pts, np.sort(times[clean])), index.frames).astype(np.int64)


def at_borders(
    pieces: Sequence[Interval], index: VideoIndex, places: Int64[np.ndarray, " K"], exact: bool
) -> list[Interval]:
    """Pieces moved to where the video can be cut: outer ends outwards, inner ones to the last place before.

    Args:
        exact: refuse to move an end, for frames that belong to actions.

    Raises:
        DecodeError: keyframes lie too far apart to cut the pieces between them.
    """
    seconds = frame_seconds(index)
    slack = float(seconds[-1]) / max(1, index.frames) / 4
    wanted = np.searchsorted(seconds, [pieces[0].start - slack, *(piece.end - slack for piece in pieces)])
    ends = [int(places[max(0, np.searchsorted(places, frame, side="right") - 1)]) for frame in wanted[:-1]]
    ends.append(int(places[np.searchsorted(places, min(int(wanted[-1]), index.frames))]))
    if exact and ends != wanted.tolist():
        raise DecodeError("no keyframe", f"it does not begin and end at keyframes, and actions belong to it. {WITHOUT}")
    gaps = [first for first, last in pairwise(ends) if last <= first]
    if gaps:
        raise DecodeError(
            "no keyframe",
            f"there is none to cut at near {seconds[gaps[0]]:.1f} s; it has {len(places) - 1} such places. {WITHOUT}",
        )
    times = pairwise(seconds[ends].tolist())
    return [Interval(piece.number, start, end) for piece, (start, end) in zip(pieces, times, strict=True)]


def copy_packets(src: Source, index: VideoIndex, first: int, last: int) -> bytes:
    """Frames `first` to `last` (not included), both borders, as an mp4 of the same packets. Sound is left out.

    Raises:
        DecodeError: the video is damaged.
    """
    low = int(index.pts[first])
    high = int(index.pts[last]) if last < index.frames else math.inf
    buffer = io.BytesIO()
    with _opened(src) as container, av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in _packets(container, low):
            if (packet.pts or 0) >= high:
                break  # everything before it is stored before the keyframe at the end
            packet.pts = (packet.pts or 0) - low
            if packet.dts is not None:
                packet.dts -= low
            packet.stream = stream
            out.mux(packet)
    return buffer.getvalue()


def _packets(container: InputContainer, first: int) -> Iterator[Packet]:
    """Packets in the order they are stored, from the one shown at `first` on."""
    # Where a seek lands behind it, as in MPEG-TS, everything before is read.
    for start, stream in ((first, container.streams.video[0]), (0, None)):
        container.seek(start, stream=stream)
        shown = (p for p in container.demux(video=0) if p.size and p.pts is not None and p.pts >= first)
        packet = next(shown, None)
        if packet is not None and packet.pts == first:
            yield packet
            yield from shown
            return
    raise DecodeError("damaged", "a keyframe of the index is not in the file")


def _opened(src: Source) -> InputContainer:
    try:
        return av.open(io.BytesIO(src) if isinstance(src, bytes) else str(src), "r", metadata_errors="replace")
    except FFmpegError as error:
        raise DecodeError("damaged", f"FFmpeg: {error.strerror}") from error
