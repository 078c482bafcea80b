"""Videos of every kind that people have, made by ffmpeg on the spot; each frame carries its own number.

An image is 4 x 4 blocks, light or dark: the eight bits of the number and, below them, the same bits inverted. So it
can be read after any encoder, and a damaged image is told from another frame. A little noise, different in each
frame, makes the files as large as real ones. What the frames of a file are is said by the `ffmpeg` program, which
decodes it from beginning to end.
"""

import io
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray

Images = NDArray[np.uint8]
RATE = 30
HEIGHT, WIDTH = 48, 64


def ffmpeg(*arguments: str | Path, stdin: bytes | None = None) -> bytes:
    """Runs the program; its standard output."""
    program = shutil.which("ffmpeg")
    assert program, "these tests make their videos with ffmpeg. On Debian and Ubuntu: apt-get install ffmpeg"
    done = subprocess.run([program, "-v", "error", "-y", *map(str, arguments)], input=stdin, capture_output=True)
    assert done.returncode == 0, f"ffmpeg {' '.join(map(str, arguments))}: {done.stderr.decode()[-2000:]}"
    return done.stdout


def encode_at(images: Images, times: Sequence[int], codec: str = "libx264", **options: str) -> bytes:
    """An mp4 by PyAV, with frame i shown at `times[i]` / 30 s."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", options
        stream.codec_context.time_base = Fraction(1, 30)
        for image, time in zip(images, times, strict=True):
            frame = VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def images(count: int, height: int = HEIGHT, width: int = WIDTH) -> Images:
    """Numbered frames [count, height, width, 3]; `count` <= 256."""
    bits = (np.arange(count)[:, None] >> np.arange(8)) & 1
    light = (50 + 150 * np.concatenate([bits, 1 - bits], axis=1)).reshape(count, 4, 4)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    noise = np.random.default_rng(0).integers(-16, 17, (count, height, width, 3))
    return (light[:, rows][:, :, columns, None] + noise).astype(np.uint8)


def read_numbers(frames: Images) -> list[int]:
    """The numbers in frames [T, h, w, 3] of `images`, at any size; -1 where the image is damaged."""
    rows, columns = np.arange(frames.shape[1]) * 4 // frames.shape[1], np.arange(frames.shape[2]) * 4 // frames.shape[2]
    light = np.stack(
        [frames[:, rows == i // 4][:, :, columns == i % 4].mean(axis=(1, 2, 3)) > 125 for i in range(16)], axis=1
    )
    whole = (light[:, :8] != light[:, 8:]).all(axis=1)
    return np.where(whole, (light[:, :8] << np.arange(8)).sum(axis=1), -1).tolist()


def decoded_by_ffmpeg(path: Path, height: int, width: int) -> Images:
    """All frames of a file, in the order shown, from beginning to end, as the `ffmpeg` program sees them."""
    raw = ffmpeg("-i", path, "-map", "0:V:0", "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


@dataclass(frozen=True)
class Case:
    """One kind of file.

    Attributes:
        make: writes it to a path.
        ending: of its name.
        count: its frames are numbered 0, 1, ... `count` - 1. None: a cut, which may lack some; ffmpeg says which.
        turned: quarter turns counter-clockwise by which it is shown.
        height, width: as it is shown.
    """

    make: Callable[[Path], None]
    ending: str = "mp4"
    count: int | None = 90
    turned: int = 0
    height: int = HEIGHT
    width: int = WIDTH


@cache
def _raw(count: int, height: int, width: int) -> bytes:
    return images(count, height, width).tobytes()


def encode(path: Path, options: str, count: int = 90, height: int = HEIGHT, width: int = WIDTH) -> None:
    """The numbered frames at 30 fps, through ffmpeg with these options."""
    given = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {RATE} -i pipe:".split()
    ffmpeg(*given, *options.split(), path, stdin=_raw(count, height, width))


def encoded(options: str, ending: str = "mp4", *, count: int = 90, height: int = HEIGHT, width: int = WIDTH) -> Case:
    def make(path: Path) -> None:
        encode(path, options, count, height, width)

    return Case(make, ending, count=count, height=height, width=width)


def remuxed(options: str, again: str, ending: str = "mp4", *, before: str = "", **fields: Any) -> Case:
    """Encoded with `options`, then copied (`-c copy`) with `again`; `before` goes before the input."""

    def make(path: Path) -> None:
        whole = path.with_name(f"whole-{path.stem}.mp4")
        encode(whole, options)
        ffmpeg(*before.split(), "-i", whole, *again.split(), "-c", "copy", path)

    return Case(make, ending, **fields)


def captured(options: str, packets: int) -> Case:
    """An MPEG-TS whose recording began in mid-stream."""

    def make(path: Path) -> None:
        encode(path, options)
        path.write_bytes(path.read_bytes()[188 * packets :])

    return Case(make, "ts", count=None)


MIXED = ["-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic"]


def with_cover(options: str) -> Case:
    """The first image track is a still one, as in films and songs that carry a cover."""

    def make(path: Path) -> None:
        whole, cover = path.with_name(f"whole-{path.stem}.mp4"), path.with_name(f"cover-{path.stem}.png")
        encode(whole, options)
        encode(cover, "-frames:v 1", count=1)
        ffmpeg("-i", cover, "-i", whole, *MIXED, path)

    return Case(make)


X264 = "-c:v libx264 -preset veryfast -pix_fmt yuv420p"
CLOSED = f"{X264} -g 24 -bf 3 -flags +cgop"
OPEN = f"{X264} -x264-params open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0"
X265 = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -tag:v hvc1"
HEVC_OPEN = (
    f"{X265} -x265-params log-level=none:open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=4:b-adapt=0:pools=1"
)
GAPS = "settb=1/1000,setpts=PTS+floor(N/7)*0.4/TB+mod(N\\,3)*0.01/TB"

CASES: dict[str, Case] = {
    "h264, groups of 12": encoded(f"{X264} -g 12 -bf 0"),
    "h264, groups of 30": encoded(f"{X264} -g 30 -bf 0"),
    "h264, groups of 250": encoded(f"{X264} -g 250 -bf 0 -sc_threshold 0", count=255),
    "h264, B-frames": encoded(CLOSED),
    "h264, open groups": encoded(OPEN),
    "h264, no keyframes but a moving refresh": encoded(f"{X264} -x264-params intra-refresh=1:keyint=15"),
    "h264, interlaced": encoded(f"{X264} -g 12 -bf 2 -flags +ildct+ilme -x264opts tff=1", height=64),
    "h264, 10 bits": encoded("-c:v libx264 -preset veryfast -pix_fmt yuv420p10le -g 12 -bf 2"),
    "h264, 4:4:4": encoded("-c:v libx264 -preset veryfast -pix_fmt yuv444p -g 12 -bf 2"),
    "h264, odd sides": encoded("-c:v libx264 -preset veryfast -pix_fmt yuv444p -g 12", height=45, width=67),
    "h264, cut with an edit list": remuxed(CLOSED, "-t 1", before="-ss 1.1", count=None),
    "h264, cut shorter than a group": remuxed(f"{X264} -g 60 -bf 3", "-t 0.3", before="-ss 0.9", count=None),
    "h264, cut of open groups": remuxed(OPEN, "-t 1", before="-ss 1.1", count=None),
    "h264, shown late": remuxed(CLOSED, "", before="-itsoffset 3"),
    "h264, MPEG-TS": encoded(f"{CLOSED} -f mpegts", "ts"),
    "h264, MPEG-TS recorded from the middle": captured(f"{X264} -g 24 -bf 0 -f mpegts", 40),
    "h264, Matroska with an offset": remuxed(CLOSED, "-output_ts_offset 5", "mkv"),
    "h264, fragmented": encoded(f"{CLOSED} -movflags frag_keyframe+empty_moov+default_base_moof"),
    "h264, fragmented with B-frames shown early": encoded(f"{CLOSED} -movflags frag_keyframe+negative_cts_offsets"),
    "h264, uneven times with gaps": encoded(
        f"-vf {GAPS} -fps_mode vfr -enc_time_base 1:1000 -video_track_timescale 1000 {CLOSED}"
    ),
    "h264, AVI": encoded(f"{X264} -g 12 -bf 0", "avi"),
    "h264, one frame": encoded(X264, count=1),
    "h264, sound longer than images": encoded(f"-f lavfi -i sine=duration=6 -map 0:v -map 1:a -c:a aac {CLOSED}"),
    "h264, sound first": encoded(f"-f lavfi -i sine=duration=3 -map 1:a -map 0:v -c:a aac {CLOSED}"),
    "h264, a cover image before it": with_cover(CLOSED),
    "hevc, open groups": encoded(HEVC_OPEN),
    "hevc, cut of open groups": remuxed(HEVC_OPEN, "-t 1", before="-ss 1.1", count=None),
    "hevc, closed groups": encoded(f"{X265} -x265-params log-level=none:open-gop=0:keyint=12:pools=1"),
    "vp9": encoded("-c:v libvpx-vp9 -cpu-used 8 -deadline realtime -g 20 -b:v 300k -pix_fmt yuv420p", "webm"),
    "vp9, odd sides": encoded("-c:v libvpx-vp9 -cpu-used 8 -g 20 -pix_fmt yuv420p", "webm", height=45, width=67),
    "vp9, hidden frames": encoded(
        "-c:v libvpx-vp9 -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 16 -g 40 -pix_fmt yuv420p", "webm"
    ),
    "vp8, hidden frames": encoded("-c:v libvpx -auto-alt-ref 1 -lag-in-frames 16 -g 40 -b:v 400k", "webm"),
    "av1": encoded("-c:v libaom-av1 -cpu-used 8 -usage realtime -g 20 -pix_fmt yuv420p"),
    "av1, hidden frames": encoded("-c:v libaom-av1 -cpu-used 8 -g 20 -lag-in-frames 12 -pix_fmt yuv420p", count=40),
    "mpeg4, B-frames in an AVI": encoded("-c:v mpeg4 -q:v 3 -g 12 -bf 2", "avi"),
    "mpeg4, mp4": encoded("-c:v mpeg4 -q:v 3 -g 12 -bf 2"),
    "mpeg2, open groups": encoded("-c:v mpeg2video -q:v 3 -g 12 -bf 2 -f mpegts", "ts"),
    "motion jpeg": encoded("-c:v mjpeg -q:v 3 -pix_fmt yuvj420p", "avi"),
} | {
    f"h264, turned by {90 * turns}": remuxed(
        CLOSED,
        f"-metadata:s:v rotate={90 * turns}",
        turned=turns,
        height=WIDTH if turns % 2 else HEIGHT,
        width=HEIGHT if turns % 2 else WIDTH,
    )
    for turns in (1, 2, 3)
}


def numbers_of(name: str, path: Path) -> list[int]:
    """The numbers of the frames of a case, in the order shown."""
    case = CASES[name]
    shown = decoded_by_ffmpeg(path, case.height, case.width)
    numbers = read_numbers(np.rot90(shown, -case.turned, (1, 2)))
    if case.count is None:
        assert len(numbers) > 5 and numbers == sorted(set(numbers)) and numbers[0] > 0
    else:
        assert numbers == list(range(case.count)), "ffmpeg has not made the file that it was asked for"
    return numbers


def make_case(name: str, folder: Path) -> Path:
    """The file of a case, made once a folder."""
    path = folder / f"{list(CASES).index(name)}.{CASES[name].ending}"
    if not path.exists():
        CASES[name].make(path)
    return path


def needs(backend: str) -> None:
    """Skip where a decoder is not installed. It is not imported here: decord as it imports itself keeps pygame from
    reading images in the same process; jepa_data/decode/decord.py imports it in another way.
    """
    if find_spec("av" if backend == "pyav" else backend) is None:
        pytest.skip(f"{backend} is not installed")
