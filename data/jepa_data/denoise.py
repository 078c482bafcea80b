"""Takes noise out of videos with a filter of FFmpeg, and encodes what comes out: same frames, same times, same size.

video ──decode──→ frames ──filter──→ cleaner frames ──H.264──→ mp4       a few frames in memory at a time

nlmeans     non-local means (Buades et al., 2005), frame by frame: grain and sensor noise; slow
median      the median of a square around each pixel: dead and flickering pixels; loses fine detail
temporal    the mean of each pixel over neighboring frames that differ little (atadenoise), for a camera that stands
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal, Protocol, cast

import numpy as np
from av.error import BlockingIOError as NotYet
from av.error import EOFError as Ended
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from jepa_data.decode import Reader, get_backend
from jepa_data.errors import DecodeError
from jepa_data.shards.encode import Mp4Encoder, PixelFormat
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import IMAGES
from jepa_data.shards.read import ShardFiles

Method = Literal["nlmeans", "median", "temporal"]
CHUNK = 32  # frames decoded at a time
WINDOW = 9  # frames that `temporal` averages over, at most
ALIKE, SUM_ALIKE = 4.0, 8.0  # noise levels by which a pixel may differ from another frame's, and summed over frames


class Filter(Protocol):
    """What to do; `curate.config.Denoise` says it.

    Attributes:
        method: see the module.
        strength: standard deviation of the noise, in gray levels of 255; of median: radius in pixels.
        crf: x264's quality of the result, 0 (best) to 51.
        pixel_format: see `Mp4Encoder`.
    """

    @property
    def method(self) -> Method: ...
    @property
    def strength(self) -> float: ...
    @property
    def crf(self) -> int: ...
    @property
    def pixel_format(self) -> PixelFormat: ...


def filter_text(wanted: Filter) -> tuple[str, str]:
    """Name and arguments of FFmpeg's filter."""
    strength = wanted.strength
    if wanted.method == "nlmeans":
        return "nlmeans", f"s={strength:g}:p=5:r=11"
    if wanted.method == "median":
        return "median", f"radius={max(1, round(strength))}"
    near = min(0.3, ALIKE * strength / 255)
    total = min(5.0, SUM_ALIKE * strength / 255)
    planes = ":".join(f"{plane}a={near:g}:{plane}b={total:g}" for plane in range(3))
    return "atadenoise", f"{planes}:s={WINDOW}"


def filtered(frames: Iterable[UInt8[np.ndarray, "_ h w 3"]], wanted: Filter) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Cleaner images, one for each of the frames, in order."""
    graph: Graph | None = None
    for images in frames:
        for image in images:
            graph = graph or _graph(image, wanted)
            graph.push(VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"))
            yield from _pulled(graph)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph)


def denoise(reader: Reader, wanted: Filter) -> tuple[bytes, float]:
    """An mp4 of cleaner frames at the times of the old ones, and the mean squared change in gray levels.

    Raises:
        DecodeError: a frame cannot be decoded.
    """
    index = reader.index
    waiting: deque[np.ndarray] = deque()
    change = 0.0

    def originals() -> Iterator[np.ndarray]:
        for first in range(0, index.frames, CHUNK):
            images = reader.frames(range(first, min(first + CHUNK, index.frames)))
            waiting.extend(images)
            yield images

    with Mp4Encoder(
        index.height, index.width, index.fps, crf=wanted.crf, pixel_format=wanted.pixel_format, times=index
    ) as encoder:
        for image in filtered(originals(), wanted):
            change += float(np.square(image.astype(np.float32) - waiting.popleft()).mean())
            encoder.add(image[None])
        if encoder.frames != index.frames:
            raise DecodeError("damaged", f"{encoder.frames} frames came out of the filter, {index.frames} went in")
        return encoder.finish(), change / index.frames


@dataclass(frozen=True)
class Denoised:
    """What became of the videos of a corpus.

    Attributes:
        videos: encoded again.
        change_db: mean PSNR, in dB, of the filter's output against its input: higher is less change; None: no change.
        left: videos that could not be decoded wholly and stay as they were, with the reason.
    """

    videos: int
    change_db: float | None
    left: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        change = "without a change" if self.change_db is None else f"the mean change is {self.change_db:.1f} dB (PSNR)"
        lines = [f"denoise: {self.videos} videos are encoded again; {change}"]
        if self.left:
            lines.append(
                f"denoise: {len(self.left)} videos cannot be decoded wholly and stay as they were: {self.left[0]}"
            )
        return lines


class DenoisedVideos:
    """Iterates over the denoised videos of some samples in their order; None: a video or image stays as it was.

    Args:
        wanted: None: all stay as they are.
        threads: videos that are worked on at a time. FFmpeg does the work, without Python's lock.
    """

    def __init__(self, shards: ShardSet, rows: Sequence[int], wanted: Filter | None, threads: int) -> None:
        self._shards = shards
        self._rows = rows
        self._wanted = wanted
        self._threads = max(1, threads)
        self._changes: list[float] = []
        self._left: list[str] = []

    def __iter__(self) -> Iterator[bytes | None]:
        if self._wanted is None:
            yield from (None for _ in self._rows)
            return
        waiting: deque[Future[tuple[bytes, float] | None]] = deque()
        rows = deque(self._rows)
        with ThreadPoolExecutor(self._threads) as pool:
            while rows or waiting:
                while rows and len(waiting) < 2 * self._threads:
                    waiting.append(pool.submit(self._video, self._wanted, rows.popleft()))
                result = waiting.popleft().result()
                if result is not None:
                    self._changes.append(decibels(result[1]))
                yield None if result is None else result[0]

    def result(self) -> Denoised | None:
        """After all of them; None if nothing was to be done."""
        if self._wanted is None:
            return None
        known = [change for change in self._changes if math.isfinite(change)]
        mean = round(sum(known) / len(known), 2) if known else None
        return Denoised(len(self._changes), mean, tuple(sorted(self._left)))

    def _video(self, wanted: Filter, row: int) -> tuple[bytes, float] | None:
        sample = self._shards.samples[row]
        if sample.media in IMAGES:
            return None
        try:
            data = ShardFiles(self._shards.store).read(sample)[sample.media]
            with get_backend("pyav").open(data, sample.video_index()) as reader:
                return denoise(reader, wanted)
        except DecodeError as error:
            self._left.append(f"{sample.key} ({error.kind}: {error.detail})")
            return None


def decibels(squared_error: float) -> float:
    """PSNR of a mean squared error in gray levels of 255; infinite without any."""
    return 10 * math.log10(255**2 / squared_error) if squared_error > 0 else math.inf


def _graph(image: UInt8[np.ndarray, "h w 3"], wanted: Filter) -> Graph:
    height, width = image.shape[:2]
    graph = Graph()
    graph.threads = 1  # the result does not depend on it; several videos are worked on at a time
    source = graph.add_buffer(width=width, height=height, format=VideoFormat("rgb24"), time_base=Fraction(1, 1000))
    name, arguments = filter_text(wanted)
    # Planes of red, green and blue: no rounding to and from other colors.
    parts = [source, graph.add("format", "gbrp"), graph.add(name, arguments), graph.add("format", "rgb24")]
    parts.append(graph.add("buffersink"))
    for part, next_part in pairwise(parts):
        part.link_to(next_part)
    graph.configure()
    return graph


def _pulled(graph: Graph) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    while True:
        try:
            frame = cast(VideoFrame, graph.pull())
        except (NotYet, Ended):
            return
        yield frame.to_ndarray(format="rgb24")
