"""The backends that take PyAV's index of a video, and refuse by it what they are known to get wrong."""

from jepa_data.decode.base import LIMITS, Limits, Source, VideoIndex, first_bytes
from jepa_data.decode.pyav import PyAVBackend
from jepa_data.decode.reader import OnePassReader


class PacketIndexBackend:
    """See `VideoBackend`. A backend adds its name and its reader."""

    name: str
    reader: type[OnePassReader]

    def probe(self, src: Source, limits: Limits = LIMITS) -> VideoIndex:
        return PyAVBackend().probe(src, limits)

    def open(self, src: Source, index: VideoIndex | None = None, limits: Limits = LIMITS) -> OnePassReader:
        first_bytes(src, limits)
        if index is None or index.hazards is None:
            index = self.probe(src, limits)
        return self.reader(src, index, limits)
