"""How fast clips can be read from a folder of shards, where the time goes, and how far that is from the best possible.

    read ──→ open ──→ decode ──→ scale ──→ collate          CPU time of each stage, one core, on the same samples
                      └─ decode only: FFmpeg alone on the same frames; what no loader can beat

The limit of the machine is its cores over the time of decoding alone. The loader runs as in training: it is timed
alone, then with a pause after each batch where a training step would be.
"""

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import psutil

from jepa_data.config import StreamConfig
from jepa_data.decode import Crop, VideoIndex, get_backend
from jepa_data.errors import DataError
from jepa_data.inspect.decode_only import decode_only
from jepa_data.process_pool import cores
from jepa_data.sampling import clip_indices, fitted_box, possible_starts, random_box
from jepa_data.shards.manifest import IMAGES, Sample
from jepa_data.shards.read import ShardFiles
from jepa_data.stream.clips import collate
from jepa_data.stream.loader import ClipLoader, make_loader

ROUNDS = 2  # of each backend, one after the other: A B A B
WARM = 3  # batches of each worker that are thrown away first
STAGES = ("read", "open", "decode", "scale", "collate")
BUSY = 0.3  # load per core above which the figures are those of a busy machine


@dataclass
class Timing:
    """One backend on one folder.

    Attributes:
        stages: CPU milliseconds a clip; `scale` holds cropping, scaling and the conversion to RGB. Decoders that scale
            while they decode have it in `decode`.
        decode_only: of FFmpeg alone on the same frames.
        clips_per_second: of the loader; `rounds` are its single measurements.
        wait_share: of the time, with a step of `step_seconds`; None where none was asked for.
        worker_mib: memory of the largest worker, or of this process where it decodes itself; None where unknown.
        refused: samples this backend does not read.
    """

    backend: str
    stages: dict[str, float]
    decode_only: float
    rounds: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    worker_mib: float | None = None
    refused: int = 0

    @property
    def clips_per_second(self) -> float:
        return statistics.median(self.rounds)

    @property
    def wait_share(self) -> float | None:
        if self.waits:
            return statistics.median(self.waits)
        return None


@dataclass(frozen=True)
class Bench:
    """What `jepa data bench` found out. `cores` decode at most: those of the machine."""

    config: StreamConfig
    clips: int
    cores: int
    step_seconds: float | None
    timings: tuple[Timing, ...]
    load: float

    def limit(self, timing: Timing) -> float:
        """Clips a second that this machine could decode, if it did nothing else."""
        return 1000 * self.cores / timing.decode_only

    def to_json(self) -> dict[str, Any]:
        backends = {
            timing.backend: asdict(timing)
            | {
                "clips_per_second": timing.clips_per_second,
                "limit_clips_per_second": self.limit(timing),
                "share_of_limit": timing.clips_per_second / self.limit(timing),
                "wait_share": timing.wait_share,
            }
            for timing in self.timings
        }
        about = {"clips": self.clips, "cores": self.cores, "load": self.load, "step_seconds": self.step_seconds}
        return {"config": self.config.model_dump(mode="json"), **about, "backends": backends}

    def rows(self) -> list[list[str]]:
        """A table for people: a column for each backend."""
        c = self.config

        def row(name: str, cell: Callable[[Timing], str]) -> list[str]:
            return [name, *(cell(timing) for timing in self.timings)]

        def stage(timing: Timing, name: str) -> str:
            if name not in timing.stages:
                return "  (in decode)"
            share = timing.stages[name] / max(1e-9, sum(timing.stages.values()))
            return f"{timing.stages[name]:8.2f} ms {share:4.0%}"

        rows = [row("CPU time a clip", lambda t: t.backend)]
        rows += [row(name, lambda t, name=name: stage(t, name)) for name in STAGES]
        rows.append(row("all stages", lambda t: f"{sum(t.stages.values()):8.2f} ms"))
        rows.append(row("decode only", lambda t: f"{t.decode_only:8.2f} ms"))
        rows.append(row(f"limit of {self.cores} cores", lambda t: f"{self.limit(t):8.1f} clips/s"))
        rows.append(row("loader", lambda t: f"{t.clips_per_second:8.1f} clips/s"))
        rows.append(row("share of the limit", lambda t: f"{t.clips_per_second / self.limit(t):8.2f}"))
        if self.step_seconds is not None:
            rows.append(row(f"waiting, steps of {1000 * self.step_seconds:g} ms", lambda t: f"{t.wait_share:8.0%}"))
        rows.append(row("keeps up with steps of", lambda t: f"{1000 * c.batch_size / t.clips_per_second:8.0f} ms"))
        if any(timing.worker_mib for timing in self.timings):
            what = "memory of a worker" if c.has_worker_processes else "memory"
            rows.append(row(what, lambda t: f"{t.worker_mib:8.0f} MiB" if t.worker_mib else ""))
        if any(timing.refused for timing in self.timings):
            rows.append(row("samples refused", lambda t: f"{t.refused:8}"))
        return rows

    def lines(self) -> list[str]:
        """What stands above and below the table."""
        c = self.config
        size = f"{c.image_size} px" if c.image_size else "size as stored"
        facts = [f"{self.clips} clips of {c.clip_frames} frames{c.rate_text()}", size, f"batches of {c.batch_size}"]
        facts.append(f"{c.workers} workers ({c.worker_kind})" if c.workers else "no workers")
        if c.clips_per_video > 1:
            facts.append(f"{c.clips_per_video} clips a video")
        lines = [", ".join(facts)]
        if self.load > BUSY:
            lines.append(
                f"note: other programs use this machine (load {self.load * self.cores:.1f} on {self.cores} cores), so "
                "the loader is slower, and its share of the limit lower, than on an idle one"
            )
        if not c.workers:
            lines.append("note: without workers one core does everything; see data.workers")
        return lines


def bench(
    config: StreamConfig,
    split: str,
    *,
    clips: int = 64,
    step_seconds: float | None = None,
    backends: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Bench:
    """Time the stages, decoding alone, and the loader.

    Args:
        clips: looked at, at least; whole batches.
        step_seconds: pause after each batch in a second run, as a training step would make.
        backends: compared, alternately; none: that of the config.

    Raises:
        DataError: the folder cannot be used, or a backend is not installed.
    """
    load = os.getloadavg()[0] / cores() if hasattr(os, "getloadavg") else 0.0
    batches = max(2, -(-clips // config.batch_size))
    # Kept images would be decoded once and counted often; those of a video's other clips are what is measured.
    cache = 0 if config.clips_per_video == 1 else max(config.cache_mib, 256)
    names = list(dict.fromkeys(backends or (config.backend,)))
    total = len(names) * (1 + ROUNDS)
    timed: list[tuple[Timing, StreamConfig]] = []
    for name in names:
        get_backend(name)
        own = config.model_copy(update={"backend": name, "cache_mib": cache, "quarantine": None})
        timed.append((time_stages(own, split, batches * config.batch_size), own))
        progress(len(timed), total)
    for done, (timing, own) in enumerate(timed * ROUNDS, len(names) + 1):
        _time_loader(timing, own, split, batches, step_seconds)
        progress(done, total)
    timings = tuple(timing for timing, _ in timed)
    return Bench(config, batches * config.batch_size, cores(), step_seconds, timings, load)


def time_stages(config: StreamConfig, split: str, clips: int) -> Timing:
    """CPU time of each stage, and of decoding alone; how many samples the backend refused.

    Raises:
        DataError: it refused all of them.
    """
    loader = make_loader(config, split, seed=0)
    random = np.random.default_rng(0)
    spent: dict[str, float] = defaultdict(float)
    done = refused = 0
    for source, sample in _chosen(loader, -(-clips // config.clips_per_video)):
        if sample.media in IMAGES:
            continue  # an image has no stages worth telling apart
        try:
            seconds = _time_sample(config, ShardFiles(loader.corpora[source].store), sample, random)
        except DataError:
            refused += 1
            continue
        for name in seconds:
            spent[name] += 1000 * seconds[name]
        done += config.clips_per_video
    if not done:
        raise DataError(f"{loader.shards.url}: backend {config.backend} could read none of {refused} samples")
    each = {name: milliseconds / done for name, milliseconds in spent.items()}
    return Timing(config.backend, decode_only=each.pop("decode_only"), stages=each, refused=refused)


def _time_sample(
    config: StreamConfig, files: ShardFiles, sample: Sample, random: np.random.Generator
) -> dict[str, float]:
    """CPU seconds of each stage, and of decoding alone, for all clips of a video. Raises DataError."""
    backend = get_backend(config.backend)
    index = sample.video_index()
    assert index is not None
    began = time.process_time()
    data = files.read(sample)[sample.media]
    read = time.process_time()
    reader = backend.open(data, index)
    opened = time.process_time()
    cuts, crop = _cuts(config, index, random)
    wanted = np.unique(np.concatenate(cuts))
    with reader:
        frames = reader.frames(wanted, size=config.size, crop=crop)
    decode = time.process_time() - opened
    alone = decode_only(data, index, wanted)
    images = [frames[np.searchsorted(wanted, cut)] for cut in cuts]
    collating = time.process_time()
    next(iter(collate([([_as_sample(sample, each) for each in images], [])])))
    collated = time.process_time() - collating
    stages = {"read": read - began, "open": opened - read, "collate": collated, "decode_only": alone}
    if config.backend != "pyav":
        return stages | {"decode": decode}
    return stages | {"decode": min(alone, decode), "scale": max(0.0, decode - alone)}


def _chosen(loader: ClipLoader, videos: int) -> list[tuple[int, Sample]]:
    """The first different videos of the loader's order, with their source."""
    samples: dict[tuple[int, int], Sample] = {}
    for number in range(loader.plan.epoch_batches):
        for index in loader.plan.batch(number):
            if len(samples) == videos:
                break
            samples.setdefault((index.source, index.video), loader.corpora[index.source][index.video])
    return [(source, sample) for (source, _), sample in samples.items()]


def _cuts(config: StreamConfig, index: VideoIndex, random: np.random.Generator) -> tuple[list[np.ndarray], Crop | None]:
    """Frames of each clip of a video, and the part of the images that is seen, as in training."""
    timing = (config.clip_frames, config.fps, config.stride)
    starts = possible_starts(index.seconds, *timing)
    cuts = [clip_indices(index.seconds, int(random.integers(starts)), *timing) for _ in range(config.clips_per_video)]
    if config.crop is not None:
        return cuts, random_box(random, index.height, index.width, config.crop.scale, config.crop.ratio)
    return cuts, fitted_box(index.height, index.width, config.image_size, config.fit, config.shortest_edge)


def _as_sample(sample: Sample, frames: np.ndarray) -> dict[str, Any]:
    about = {"__key__": sample.key, "__url__": sample.shard, "source": 0, "labels": sample.labels, "seed": 0}
    nothing = {"actions": None, "states": None, "spatial": {}}
    return about | nothing | {"video": frames, "start_seconds": 0.0, "still": False}


def _time_loader(timing: Timing, config: StreamConfig, split: str, batches: int, step_seconds: float | None) -> None:
    """Adds a measurement of the loader's speed, and of its waiting. Its start is left out."""
    warm = max(1, WARM * config.workers)
    before = set(descendants())
    runs = [pause for pause in (0.0, step_seconds) if pause is not None]
    loader = iter(make_loader(config, split, seed=0, total_batches=warm + batches * len(runs)))
    # What the workers had prepared while they were started is used up first.
    for _ in range(warm):
        next(loader)
    for pause in runs:
        waited = 0.0
        began = time.perf_counter()
        for _ in range(batches):
            asked = time.perf_counter()
            next(loader)
            waited += time.perf_counter() - asked
            time.sleep(pause)
        took = time.perf_counter() - began
        if pause:
            timing.waits.append(waited / took)
        else:
            timing.rounds.append(batches * config.batch_size / took)
    workers = set(descendants()) - before if config.has_worker_processes else {os.getpid()}
    memory = max((memory_of(pid) for pid in workers), default=0.0)
    timing.worker_mib = max(memory, timing.worker_mib or 0.0) or None


def descendants() -> list[int]:
    """Numbers of the processes started by this one, by those, and so on."""
    return [process.pid for process in psutil.Process().children(recursive=True)]


def memory_of(pid: int) -> float:
    """MiB that a process holds, without what it shares with others; 0.0 where that cannot be known."""
    try:
        memory = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return 0.0
    return (memory.uss + getattr(memory, "swap", 0)) / 2**20
