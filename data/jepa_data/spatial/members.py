"""An aligned array as a file in a shard: NumPy's .npz, compressed without loss, in parts of a few frames.

    00000000.npy  frames 0..31     00000032.npy  frames 32..63     ...

A clip reads only the parts that its frames are in. The zip file has a CRC-32 of every part. Nothing is unpickled, and
a part is not decompressed if it says that it is larger than its array can be.
"""

import io
import zipfile
import zlib
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.lib import format as npy

from jepa_data.errors import DecodeError
from jepa_data.spatial.kinds import SpatialInfo

PART_FRAMES = 32
HEADER_BYTES = 4096  # of a .npy file, at most
LEVEL = 6  # of zlib
LARGEST_PART = 2**31  # bytes


def encode(array: np.ndarray) -> bytes:
    """The file of an array [T, ...]. The same array gives the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for first in range(0, len(array), PART_FRAMES):
            part = io.BytesIO()
            npy.write_array(part, np.ascontiguousarray(array[first : first + PART_FRAMES]), allow_pickle=False)
            about = zipfile.ZipInfo(_name(first))  # dated 1980
            about.create_system = 3  # as on Unix, everywhere
            about.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(about, part.getvalue(), compresslevel=LEVEL)
    return buffer.getvalue()


def decode(data: bytes, info: SpatialInfo, frames: int, indices: Int64[np.ndarray, " T"] | None = None) -> np.ndarray:
    """The array of a video, or its rows for some frames.

    Args:
        frames: of the video.
        indices: numbers of frames; None: all.

    Raises:
        DecodeError: "damaged": the file cannot be read, or holds something else than `info` says.
    """
    wanted = np.arange(frames) if indices is None else indices
    firsts = np.unique(wanted // PART_FRAMES * PART_FRAMES).tolist()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            expected = [_name(first) for first in range(0, frames, PART_FRAMES)]
            if file.namelist() != expected:
                raise ValueError(f"it holds {len(file.namelist())} parts, {len(expected)} are expected")
            parts = {first: _part(file, info, first, min(PART_FRAMES, frames - first)) for first in firsts}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise DecodeError("damaged", f"its {info.member} cannot be read: {error}") from error
    if len({part.shape[1:] for part in parts.values()}) > 1:
        raise DecodeError("damaged", f"its {info.member} has parts of different shapes")
    array = np.concatenate([parts[first] for first in firsts])
    starts = np.searchsorted(firsts, wanted // PART_FRAMES * PART_FRAMES) * PART_FRAMES
    return array[starts + wanted % PART_FRAMES]


def describe(data: bytes) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of the first part of a file, whoever wrote it. Raises DecodeError ("damaged")."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file, file.open(_name(0)) as part:
            shape, dtype = _header(part)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, OSError, RuntimeError) as error:
        raise DecodeError("damaged", f"an aligned array cannot be read: {error}") from error
    return shape, dtype.name


def _name(first: int) -> str:
    return f"{first:08d}.npy"


def npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type, from the beginning of a .npy file. Raises many things."""
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read(stream)


def _header(part: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Raises ValueError: numpy reads it with Python's own parser, which raises many things."""
    try:
        shape, fortran, dtype = npy_header(part)
    except Exception as error:
        raise ValueError(f"no header of a .npy file ({error})") from error
    if fortran or dtype.hasobject:
        raise ValueError(f"it holds {dtype} in another order, or objects")
    return shape, dtype


def _part(file: zipfile.ZipFile, info: SpatialInfo, first: int, count: int) -> np.ndarray:
    """Raises ValueError for an array that does not fit `info`."""
    about = file.getinfo(_name(first))
    with file.open(about) as part:
        shape, dtype = _header(part)
        sides = zip(info.shape, shape[1:], strict=False)
        fits = len(shape) == 1 + len(info.shape) and all(want in (None, side) for want, side in sides)
        if not fits or shape[0] != count or dtype.name != info.dtype:
            expected = f"{info.dtype} of {[count, *info.shape]}"
            raise ValueError(f"expected {expected}, found {dtype.name} of {list(shape)} from frame {first} on")
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        if size > LARGEST_PART or not size <= about.file_size <= size + HEADER_BYTES:
            raise ValueError(f"{about.file_size} bytes for an array of {size} from frame {first} on")
        return np.frombuffer(part.read(), dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
