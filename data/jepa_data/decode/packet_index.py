"""The backends that take PyAV's index of a video, and refuse by it what they are known to get wrong."""

from jepa_data.decode.base import LIMITS, Limits, Source, VideoIndex, first_bytes
from jepa_data.decode.pyav import PyAVBackend
from jepa_data.decode.reader import Reader


class PacketIndexBackend(PyAVBackend):
    """See `VideoBackend`. A backend adds its name and its reader."""

    reader: type[Reader]

    def open(self, src: Source, index: VideoIndex | None = None, limits: Limits = LIMITS) -> Reader:
        first_bytes(src, limits)
        if index is None or index.hazards is None:
            index = self.probe(src, limits)
        return self.reader(src, index, limits)
