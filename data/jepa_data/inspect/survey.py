"""A folder of videos or of shards, as a patient: which videos are usable, why others are not, how fast they decode."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jepa_data.decode import Reader, VideoIndex, get_backend
from jepa_data.errors import DataError, DecodeError
from jepa_data.inspect.summary import evenly, seconds_of
from jepa_data.printable import first_few, printable
from jepa_data.process_pool import cores, run_in_processes
from jepa_data.sampling import clip_indices, fitted_box, possible_starts
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import IMAGES, MANIFEST, Sample
from jepa_data.shards.quarantine import Finding, lost
from jepa_data.shards.read import ShardFiles
from jepa_data.sources.corpus import VIDEO_FILES
from jepa_data.sources.walk import walk

LOOKED_AT = 1000  # videos; of more, evenly spread ones
TIMED = 8  # videos whose decoding is timed
SHOWN = 3  # examples of each reason


@dataclass(frozen=True)
class Video:
    """A usable video. `name` is its path within the folder, or the key of its sample."""

    name: str
    codec: str
    width: int
    height: int
    fps: float
    frames: int
    seconds: float


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Attributes:
        shards: the folder opened, if it holds shards.
        count: videos in it; `looked_at` of them were opened.
        videos: usable.
        broken: the others of those looked at, with the reason.
        notes: what was left out, a line each.
    """

    folder: Path
    shards: ShardSet | None
    count: int
    looked_at: int
    videos: tuple[Video, ...]
    broken: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def usable(self) -> int:
        """Videos of the whole folder that are usable, if the others are like those looked at."""
        return round(self.count * len(self.videos) / max(1, self.looked_at))

    @property
    def hours(self) -> float:
        """Of usable video, estimated in the same way."""
        return sum(video.seconds for video in self.videos) / 3600 * self.count / max(1, self.looked_at)

    def lines(self) -> list[str]:
        """The report for people."""
        part = f" ({self.looked_at} of them looked at)" if self.looked_at < self.count else ""
        what = "samples in shards" if self.shards else "video files"
        length = f"{self.hours:.1f} hours" if self.hours >= 1 else f"{60 * self.hours:.1f} min"
        lines = [f"{self.folder}: {self.count} {what}{part}, {self.usable} usable, {length}"]
        seconds = np.array([video.seconds for video in self.videos])
        if len(seconds):
            middle = f"{np.median(seconds):.1f} s in the middle"
            lines.append(f"  lengths  {seconds.min():.1f} to {seconds.max():.1f} s, {middle}")
            sizes = (f"{video.width}x{video.height}" for video in self.videos)
            lines.append(f"  codecs   {_listed(video.codec for video in self.videos)}    sizes {_listed(sizes)}")
            lines.append(f"  rates    {_listed(f'{video.fps:.4g}' for video in self.videos)} frames a second")
        for kind, count in Counter(finding.kind for finding in self.broken).most_common():
            lines.append(f"  not usable: {count} {kind}")
            same = [finding for finding in self.broken if finding.kind == kind]
            lines += [f"    {f.shard}{' ' * bool(f.key)}{f.key}: {f.detail}" for f in same[:SHOWN]]
            if count > SHOWN:
                lines.append(f"    … and {count - SHOWN} more")
        return lines + [f"  note: {note}" for note in self.notes]


@dataclass(frozen=True)
class Speed:
    """CPU time of decoding a clip: opening, decoding and scaling, in one thread."""

    clip_seconds: float
    clip_frames: int
    videos: int

    def line(self) -> str:
        each = 1000 * self.clip_seconds
        return (
            f"{each:.1f} ms a clip, {each / self.clip_frames:.2f} ms a frame: {1 / self.clip_seconds:.1f} clips/s a "
            f"core (of {self.videos} videos)"
        )


def survey(
    folder: Path, *, workers: int | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Survey:
    """Look through a folder. Raises DataError if it holds neither videos nor shards, or none is usable."""
    report = _shards(folder) if (folder / MANIFEST).is_file() else _files(folder, workers or cores(), progress)
    if not report.videos:
        first = next(iter(report.broken), "it is empty")
        raise DataError(f"{folder}: none of {report.count} videos is usable; the first: {first}")
    return report


def decode_speed(survey: Survey, clip_frames: int, fps: float | None, side: int) -> Speed:
    """Decode a clip from the middle of each of a few videos, at the size that training takes.

    Args:
        fps: of the clips; None: every frame.

    Raises:
        DataError: none of them is long enough and readable.
    """
    spent: list[float] = []
    for source in _timed(survey):
        try:
            began = time.process_time()
            with _open(survey, source) as reader:
                index = reader.index
                starts = possible_starts(index.seconds, clip_frames, fps)
                if not starts:
                    continue
                crop = fitted_box(index.height, index.width, side, "crop")
                wanted = clip_indices(index.seconds, starts // 2, clip_frames, fps)
                reader.frames(wanted, size=(side, side), crop=crop)
            spent.append(time.process_time() - began)
        except DecodeError:
            continue  # a whole decoding is the work of `check`
    if not spent:
        raise DataError(f"{survey.folder}: no clip of {clip_frames} frames could be decoded from {TIMED} of its videos")
    return Speed(sum(spent) / len(spent), clip_frames, len(spent))


def _shards(folder: Path) -> Survey:
    shards = ShardSet.open(folder)
    split = "train" if "train" in shards.manifest.splits else next(iter(shards.manifest.splits))
    samples = shards.split(split)
    videos: list[Video] = []
    broken = lost(shards)
    numbers = evenly(len(samples), LOOKED_AT)
    for number in numbers:
        try:
            sample = shards.probed(samples[number])
            index = sample.video_index()
        except DecodeError as error:
            broken.append(Finding(error.key or f"sample {number}", error.url, error.kind, error.detail))
            continue
        if index is not None and sample.media not in IMAGES:
            videos.append(_video(sample.key, index))
    return Survey(folder, shards, len(samples), len(numbers), tuple(videos), tuple(broken), shards.notes)


def _files(folder: Path, workers: int, progress: Callable[[int, int], None]) -> Survey:
    listing = walk(folder, VIDEO_FILES)
    paths = listing.files
    if not paths:
        known = f"no videos here. Their names end in one of: {' '.join(sorted(VIDEO_FILES))}"
        raise DataError("; ".join([f"{folder}: {known}", *listing.notes]))
    chosen = [paths[number] for number in evenly(len(paths), LOOKED_AT)]
    readable: dict[Path, Video] = {}
    broken: list[Finding] = []
    for done, (path, result) in enumerate(run_in_processes(_probe, chosen, min(workers, len(chosen)), 60.0), 1):
        name = path.relative_to(folder).as_posix()
        if isinstance(result, VideoIndex):
            readable[path] = _video(name, result)
        else:
            broken.append(Finding("", printable(name), result.kind, result.detail))
        progress(done, len(chosen))
    videos = tuple(readable[path] for path in chosen if path in readable)
    broken.sort(key=lambda finding: finding.shard)
    return Survey(folder, None, len(paths), len(chosen), videos, tuple(broken), listing.notes)


def _probe(path: Path, alive: Callable[[], None]) -> VideoIndex | DecodeError:
    """The index of a video, or what is wrong with it."""
    try:
        return get_backend("pyav").probe(path)
    except DecodeError as error:
        return error


def _video(name: str, index: VideoIndex) -> Video:
    seconds = seconds_of(np.array([index.frames]), index.seconds[-1:])[0]
    return Video(name, index.codec, index.width, index.height, index.fps, index.frames, float(seconds))


def _timed(survey: Survey) -> Iterator[Path | Sample]:
    """Evenly spread usable videos: files, or samples of shards."""
    if survey.shards is None:
        yield from (survey.folder / survey.videos[n].name for n in evenly(len(survey.videos), TIMED))
        return
    wanted = {survey.videos[n].name for n in evenly(len(survey.videos), TIMED)}
    for sample in survey.shards.samples:
        if sample.key in wanted:
            wanted.discard(sample.key)
            yield survey.shards.probed(sample)
        if not wanted:
            return


def _open(survey: Survey, source: Path | Sample) -> Reader:
    if isinstance(source, Path):
        return get_backend("pyav").open(source)
    assert survey.shards is not None
    data = ShardFiles(survey.shards.store).read(source)[source.media]
    return get_backend("pyav").open(data, source.video_index())


def _listed(values: Iterable[str]) -> str:
    return first_few([f"{value} {count}" for value, count in Counter(values).most_common()], 4)
