"""Decoders: the same frames from bytes or a file, whichever library reads them."""

from jepa_data.decode.base import Crop, Limits, Size, Source, VideoIndex
from jepa_data.decode.reader import Reader, VideoBackend
from jepa_data.errors import DataError, DecodeError

BACKENDS = ("pyav", "decord", "torchcodec")


def get_backend(name: str) -> VideoBackend:
    """The decoder called `name`. Raises DataError for an unknown one, or one that is not installed."""
    if name == "pyav":
        from jepa_data.decode.pyav import PyAVBackend

        return PyAVBackend()
    if name == "decord":
        from jepa_data.decode.decord import DecordBackend

        return DecordBackend()
    if name == "torchcodec":
        from jepa_data.decode.torchcodec import TorchCodecBackend

        return TorchCodecBackend()
    raise DataError(f"backend: no decoder is called {name!r}. There are: {', '.join(BACKENDS)}")


__all__ = ["Crop", "DecodeError", "Limits", "Reader", "Size", "Source", "VideoBackend", "VideoIndex", "get_backend"]
