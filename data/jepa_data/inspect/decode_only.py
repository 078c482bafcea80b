"""FFmpeg alone: how long decoding some frames of a video takes when nothing is made of them."""

import io
import time

import av
import numpy as np
from av.error import FFmpegError
from jaxtyping import Integer

from jepa_data.decode import VideoIndex
from jepa_data.errors import DecodeError


def decode_only(data: bytes, index: VideoIndex, wanted: Integer[np.ndarray, " W"]) -> float:
    """CPU seconds, opening left out, of decoding these frames (ascending) in one thread.

    Seeks to the keyframe before a frame where that saves decoding, and skips images that nothing depends on. Raises
    DecodeError.
    """
    numbers = {pts: number for number, pts in enumerate(index.pts.tolist())}
    wanted_pts = {int(index.pts[number]) for number in wanted}
    position = -1
    packets = None
    try:
        with av.open(io.BytesIO(data), "r") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            stream.codec_context.thread_type = "NONE"
            began = time.process_time()
            for number in wanted.tolist():
                keyframe = index.keyframes[max(0, int(np.searchsorted(index.keyframes, number, side="right")) - 1)]
                if packets is None or keyframe > position + 1:
                    container.seek(int(index.pts[keyframe]), stream=stream)
                    packets = container.demux(stream)
                while position < number:
                    packet = next(packets, None)
                    if packet is None:
                        raise DecodeError("missing frame", f"frame {number} did not come out of FFmpeg")
                    skippable = packet.pts is not None and packet.pts not in wanted_pts
                    stream.codec_context.skip_frame = "NONREF" if skippable else "DEFAULT"
                    for frame in packet.decode():
                        position = max(position, numbers.get(frame.pts, position))
            return time.process_time() - began
    except FFmpegError as error:
        raise DecodeError("damaged", f"FFmpeg: {error.strerror}") from error
