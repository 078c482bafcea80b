"""Looks into packets of H.264 and HEVC, which are rows of NAL units, for what containers and decoders do not say.

Where decoding can start. Containers mark packets as keyframes that are none: H.264 streams with a moving refresh have
no keyframes at all but "recovery points", from which an image becomes whole over the next second; a decoder that
starts there hands out gray images without a word.

    H.264 (ITU-T H.264, 7.4.1 and D.2.8):  no SEI recovery point whose recovery_frame_cnt is above 0
    HEVC  (ITU-T H.265, 7.4.2.2):          a NAL unit of type 16 to 23 (IRAP)

Whether a packet is whole. Decoders take an image that lost its end for one that repeats the last.

    mp4, Matroska    [size][unit] [size][unit] ...     the sizes fill the packet, and no unit ends in zeros (7.4.1)
"""

from collections.abc import Iterator

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

LOOKED_AT = 64  # bytes of a unit: a recovery point comes early among the messages of an SEI
SEI = 6  # a type of unit
RECOVERY_POINT = 6  # a type of its messages
PARAMETERS = {"h264": 7, "hevc": 33}  # the type of the unit (SPS) that says how large images are
# Some muxers leave a few zeros of padding behind a unit; a hole in a file is longer.
PADDING_BYTES = 16
PADDING_SHARE = 0.25


class Units:
    """Of the packets of one stream.

    Attributes:
        parameters: the beginnings of the different sequence parameter sets seen in keyframes.
    """

    def __init__(self, context: VideoCodecContext) -> None:
        self._codec = context.codec.canonical_name
        self.parameters: set[bytes] = set()
        extra = context.extradata or b""
        # Configuration records begin with 1 and say how many bytes the size of a unit takes; 0: start codes.
        offset = {"h264": 4, "hevc": 21}.get(self._codec, 0)
        self._prefix = (extra[offset] & 3) + 1 if offset and extra[:1] == b"\x01" and len(extra) > offset else 0

    def can_start(self, packet: Packet) -> bool:
        """Whether decoding gives right images from this packet on."""
        if not packet.is_keyframe:
            return False
        if self._codec not in ("h264", "hevc"):
            return True
        hevc = self._codec == "hevc"
        units = [(unit[0] >> 1 & 63 if hevc else unit[0] & 31, unit) for unit in self._units(bytes(packet))]
        self.parameters |= {unit for kind, unit in units if kind == PARAMETERS[self._codec]}
        if hevc:
            return any(16 <= kind <= 23 for kind, _ in units)
        return not any(kind == SEI and _recovers_slowly(unit) for kind, unit in units)

    def is_whole(self, packet: Packet) -> bool:
        """Whether the packet has all its data, as far as can be checked: always, of other codecs and containers."""
        if packet.is_corrupt:
            return False
        if not self._prefix or not packet.size:
            return True
        data = bytes(packet)
        at = 0
        while at + self._prefix <= len(data):
            size = int.from_bytes(data[at : at + self._prefix])
            at += self._prefix + size
            if size > PADDING_BYTES and at <= len(data) and not data[at - 1]:
                padding = size - len(data[at - size : at].rstrip(b"\0"))
                if padding > max(PADDING_BYTES, PADDING_SHARE * size):
                    return False
        return at == len(data) and any(data)

    def _units(self, data: bytes) -> Iterator[bytes]:
        """The first bytes of each unit."""
        at = 0
        if self._prefix:
            while at + self._prefix < len(data):
                size = int.from_bytes(data[at : at + self._prefix])
                at += self._prefix
                if size:
                    yield data[at : at + min(size, LOOKED_AT)]
                at += size
        else:
            while (at := data.find(b"\0\0\1", at) + 3) > 2 and at < len(data):
                yield data[at : at + LOOKED_AT]


def _recovers_slowly(unit: bytes) -> bool:
    """Whether an SEI holds a recovery point that takes more frames than its own."""
    data = unit.replace(b"\0\0\3", b"\0\0")
    at = 1
    while at + 2 < len(data):
        kind, at = _number(data, at)
        size, at = _number(data, at)
        if kind == RECOVERY_POINT and at < len(data):
            return data[at] < 128  # the count is in exp-Golomb code, where 0 is a single bit 1
        at += size
    return False


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of an SEI header, 255 for each full byte, and where the next begins."""
    last = at
    while data[last : last + 1] == b"\xff":
        last += 1
    return 255 * (last - at) + sum(data[last : last + 1]), last + 1
