"""Which packets a decoder can start from and give right pictures at once.

Containers mark packets as keyframes that are none. H.264 streams with a moving refresh have no keyframes at all but
"recovery points", from which a picture becomes whole over the next second; a decoder that starts there hands out grey
pictures without a word. So the marked packets of H.264 and HEVC are looked into.

    H.264 (ITU-T H.264, 7.4.1 and D.2.8):  no SEI recovery point whose recovery_frame_cnt is above 0
    HEVC  (ITU-T H.265, 7.4.2.2):          a NAL unit of type 16 to 23 (IRAP)
"""

from collections.abc import Iterator

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

LOOKED_AT = 64  # bytes of a NAL unit: a recovery point comes early among the messages of an SEI
SEI, RECOVERY_POINT = 6, 6


class CleanStarts:
    """Tells for packets of one stream whether decoding can start there."""

    def __init__(self, context: VideoCodecContext) -> None:
        self._codec = context.codec.canonical_name
        extra = context.extradata or b""
        # Configuration records begin with 1 and say how many bytes the length of a NAL unit takes; 0: start codes.
        place = {"h264": 4, "hevc": 21}.get(self._codec, 0)
        self._length = (extra[place] & 3) + 1 if extra[:1] == b"\x01" and len(extra) > place else 0

    def __call__(self, packet: Packet) -> bool:
        if not packet.is_keyframe:
            return False
        if self._codec not in ("h264", "hevc"):
            return True
        units = self._units(bytes(packet))
        if self._codec == "hevc":
            return any(16 <= unit[0] >> 1 & 63 <= 23 for unit in units)
        return not any(unit[0] & 31 == SEI and _recovers_slowly(unit) for unit in units)

    def _units(self, data: bytes) -> Iterator[bytes]:
        """The first bytes of each NAL unit."""
        at = 0
        if self._length:
            while at + self._length < len(data):
                size = int.from_bytes(data[at : at + self._length])
                at += self._length
                if size:
                    yield data[at : at + min(size, LOOKED_AT)]
                at += size
        else:
            while (at := data.find(b"\0\0\1", at) + 3) > 2 and at < len(data):
                yield data[at : at + LOOKED_AT]


def _recovers_slowly(unit: bytes) -> bool:
    """Whether an SEI holds a recovery point that takes more frames than its own."""
    data, at = unit.replace(b"\0\0\3", b"\0\0"), 1
    while at + 2 < len(data):
        kind, at = _number(data, at)
        size, at = _number(data, at)
        if kind == RECOVERY_POINT and at < len(data):
            return data[at] < 128  # the count is in exp-Golomb code, where 0 is a single bit 1
        at += size
    return False


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of an SEI header, 255 for each full byte, and where the next begins."""
    value = 0
    while at < len(data) and data[at] == 255:
        value, at = value + 255, at + 1
    return value + (data[at] if at < len(data) else 0), at + 1
