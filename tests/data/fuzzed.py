"""Damages videos, and asks a decoder for frames of each in a process of its own: a decoder can crash it.

python -m tests.data.fuzzed BACKEND FOLDER FIRST LAST     a JSON line for each file, then nothing more
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np

from jepa_data.decode import Limits, get_backend
from jepa_data.errors import DecodeError
from tests.data.video_cases import make_case, read_numbers

# Of each decoder's kinds of file: those that every one of them reads, and some that only PyAV does.
COMMON = (
    "h264, B-frames",
    "h264, groups of 30",
    "h264, Matroska with an offset",
    "hevc, closed groups",
    "vp9",
    "h264, sound first",
)
ONLY_PYAV = ("h264, MPEG-TS", "h264, fragmented", "mpeg4, B-frames in an AVI", "av1", "h264, open groups")
DAMAGE = ("cut", "one bit", "bits", "zeroed", "noise", "left out")


def damaged(data: bytes, kind: str, random: np.random.Generator) -> bytes:
    """The bytes of a file, damaged in one way."""
    broken, size = bytearray(data), len(data)
    at = int(random.integers(size))
    if kind == "cut":
        return data[:at]
    for place in random.integers(size, size={"one bit": 1, "bits": random.integers(2, 30)}.get(kind, 0)):
        broken[place] ^= 1 << int(random.integers(8))
    length = min(int(random.integers(1, 2000 if kind == "zeroed" else 400)), size - at)
    if kind == "zeroed":
        broken[at : at + length] = bytes(length)
    elif kind == "noise":
        broken[at : at + length] = random.bytes(length)
    elif kind == "left out":
        del broken[at : at + length]
    return bytes(broken)


def plain_decode(data: bytes) -> dict[int, int]:
    """The number of every frame of a file, by its time, decoded from beginning to end as far as FFmpeg gets."""
    found: dict[int, int] = {}
    with av.open(io.BytesIO(data), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    continue
                for frame in frames:
                    found.setdefault(frame.pts, read_numbers(frame.to_ndarray(format="rgb24")[None])[0])
        except IndexError:
            pass  # PyAV, over a track that first appears inside the file
    return found


def try_one(backend: str, folder: Path, seed: int) -> dict[str, Any]:
    """What became of one damaged file, and of each frame asked for.

    "right": its number is that of the whole file at that time. "unreadable": the image is damaged. "as it is":
    another number, and FFmpeg shows the same at that time when it decodes the damaged file from beginning to end.
    "another": any other number.
    """
    random = np.random.default_rng(seed)
    names = COMMON + ONLY_PYAV if backend == "pyav" else COMMON
    name, kind = names[seed % len(names)], DAMAGE[seed // len(names) % len(DAMAGE)]
    whole = make_case(name, folder).read_bytes()
    data, true = damaged(whole, kind, random), plain_decode(whole)
    result: dict[str, Any] = {"seed": seed, "name": name, "kind": kind, "refused": "", "frames": {}}
    try:
        with get_backend(backend).open(data, None, Limits(timeout_seconds=20)) as reader:
            shown = plain_decode(data)
            for number in random.permutation(reader.index.frames)[:8].tolist():
                time = int(reader.index.pts[number])
                try:
                    found = read_numbers(reader.frames([number]))[0]
                except DecodeError as error:
                    what = error.kind
                else:
                    what = _judged(found, true.get(time), shown.get(time))
                result["frames"][what] = result["frames"].get(what, 0) + 1
    except DecodeError as error:
        result["refused"] = error.kind
    return result


def _judged(found: int, true: int | None, shown: int | None) -> str:
    if found == true:
        return "right"
    if found == -1:
        return "unreadable"
    return "as it is" if found == shown else "another"


if __name__ == "__main__":
    for seed in range(int(sys.argv[3]), int(sys.argv[4])):
        sys.stdout.write(json.dumps(try_one(sys.argv[1], Path(sys.argv[2]), seed)) + "\n")
        sys.stdout.flush()
