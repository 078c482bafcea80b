"""`make bench`: the clip stream against a loader as V-JEPA 2 has it, and against bare decoding.

CPU seconds per clip of 16 frames, every 4th of a 360p video at 30 frames a second (GOP 30, B-frames), at 224 px, by two
worker processes in batches of 8: decoding, and all that it takes to bring a clip into the training process.
"""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from jepa_data.config import StreamConfig
from jepa_data.decode import get_backend
from jepa_data.inspect.bench import descendants
from jepa_data.pack.pack import Packing, open_corpus, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.shards.read import ShardFiles
from jepa_data.stream.loader import ClipLoader, make_loader
from jepa_data.transforms import IMAGENET_MEAN, IMAGENET_STD
from tests.bench.clouds import HEIGHT, WIDTH, write_clouds

Compare = Callable[..., float]
VIDEOS, SECONDS = 32, 6
FRAMES, STRIDE, SIDE = 16, 4, 224
BATCH, WORKERS = 8, 2
SCENES = 4  # different ones; the other videos are copies
BATCHES = 16  # of one measurement: the 32 videos that go together, with 4 clips of each


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clouds(tmp_path_factory.mktemp("videos"), VIDEOS, SCENES, SECONDS)


@pytest.fixture(scope="module")
def copied(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("copied") / "s"
    pack(open_corpus(videos), out, Packing(Recipe(video="copy", max_seconds=None, fps=None), test_share=0.0))
    return out


@pytest.fixture(scope="module")
def packed(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "s"
    pack(open_corpus(videos), out, Packing(Recipe(), test_share=0.0))
    return out


class NaiveClips(Dataset[torch.Tensor]):
    """V-JEPA 2's way: open the file with all threads, decode at full size, to floats, crop and scale, flip, normalize.

    Source: facebookresearch/vjepa2, src/datasets/video_dataset.py and its pretraining transform.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(map(str, folder.glob("*.mp4")))

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, number: int) -> torch.Tensor:
        import decord

        rng = np.random.default_rng(number)
        reader = decord.VideoReader(self.paths[number % len(self.paths)], num_threads=-1, ctx=decord.cpu(0))
        reader.seek(0)
        first = int(rng.integers(len(reader) - FRAMES * STRIDE))
        numbers = np.linspace(first, first + FRAMES * STRIDE - 1, FRAMES).astype(np.int64)
        video = torch.from_numpy(reader.get_batch(numbers).asnumpy()).float().permute(3, 0, 1, 2)
        top, left, height, width = _box(rng)
        part = video[:, :, top : top + height, left : left + width]
        part = F.interpolate(part, (SIDE, SIDE), mode="bilinear")
        part = part.flip(-1) if rng.random() < 0.5 else part
        mean, std = (torch.tensor(x).view(3, 1, 1, 1) * 255 for x in (IMAGENET_MEAN, IMAGENET_STD))
        return part.sub_(mean).div_(std)


def _box(rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a part with 0.3 to 1 of the area and an aspect of 0.75 to 1.35."""
    while True:
        area = HEIGHT * WIDTH * rng.uniform(0.3, 1.0)
        aspect = np.exp(rng.uniform(np.log(0.75), np.log(1.35)))
        height, width = round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))
        if height <= HEIGHT and width <= WIDTH:
            return int(rng.integers(HEIGHT - height + 1)), int(rng.integers(WIDTH - width + 1)), height, width


def naive(videos: Path) -> Iterable[object]:
    pytest.importorskip("decord")
    return DataLoader(NaiveClips(videos), batch_size=BATCH, num_workers=WORKERS)


def loader(shards: Path, clips: int, backend: str = "pyav", fps: float | None = None) -> ClipLoader:
    settings = {"shards": str(shards), "batch_size": BATCH, "clip_frames": FRAMES, "clips_per_video": clips}
    settings |= {"fps": fps} if fps else {"stride": STRIDE}
    settings |= {"image_size": SIDE, "crop": {}, "backend": backend, "cache_mib": 512, "workers": WORKERS}
    return make_loader(StreamConfig.model_validate(settings), "train", seed=0, total_batches=100_000)


class Phase:
    """Takes batches of one stream, and knows the CPU time that it and the workers it started have used.

    Workers go on for a while after a phase; `__call__` returns when they have filled their queues and rest.
    """

    def __init__(self, stream: Iterable[object]) -> None:
        before = set(descendants())
        self._batches = iter(stream)
        next(self._batches)
        self._workers = set(descendants()) - before
        self.seconds = 0.0
        self._settle()

    def __call__(self) -> None:
        began = time.process_time() + self._used()
        for _ in range(BATCHES):
            next(self._batches)
        self._settle()
        self.seconds = time.process_time() + self._used() - began

    def _settle(self) -> None:
        used = -1.0
        while used != (used := self._used()):
            time.sleep(0.4)

    def _used(self) -> float:
        total = 0
        for worker in self._workers:
            fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])  # user and system time, in ticks
        return total / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("clips", [1, 4])
def test_the_stream_against_the_loader_of_vjepa2(compare: Compare, videos: Path, copied: Path, clips: int) -> None:
    compare(
        f"data_360p_{clips}_clips",
        Phase(loader(copied, clips)),
        Phase(naive(videos)),
        f"clips of 360p GOP 30 video as it came, {clips} a video, against a loader as V-JEPA 2 has it (CPU per clip)",
        count=BATCHES * BATCH,
        rounds=3,
    )


@pytest.mark.parametrize("clips", [1, 2, 4])
def test_packed_shards_against_the_loader_of_vjepa2(compare: Compare, videos: Path, packed: Path, clips: int) -> None:
    compare(
        f"data_packed_{clips}_clips",
        Phase(loader(packed, clips, fps=7.5)),
        Phase(naive(videos)),
        f"the same from shards packed by default (256 px, 15 fps), {clips} a video (CPU per clip)",
        count=BATCHES * BATCH,
        rounds=3,
    )


def test_indexed_pyav_against_decord_on_360p(compare: Compare, copied: Path) -> None:
    pytest.importorskip("decord")
    compare(
        "data_360p_pyav",
        Phase(loader(copied, 1)),
        Phase(loader(copied, 1, backend="decord")),
        "the stream with PyAV against the stream with decord, 360p, 1 clip a video (CPU per clip)",
        count=BATCHES * BATCH,
        rounds=3,
    )


def test_the_stream_against_bare_decoding(compare: Compare, copied: Path) -> None:
    """How much of the limit is reached: the same clips, decoded and scaled by the decoder and nothing else."""
    stream = loader(copied, 4)
    plan, cut, samples = stream.plan, stream._cut, stream.samples
    files, backend = ShardFiles(stream.shards.store), get_backend("pyav")
    data = [files.read(samples[i])[samples[i].media] for i in range(len(samples))]
    firsts = (slot for slots in plan.batches(0, 100_000) for slot in slots if slot.clip == 0)

    class Bare:
        seconds = 0.0

        def __call__(self) -> None:
            began = time.process_time()
            for _ in range(BATCHES * BATCH // 4):
                slot = next(firsts)
                index = samples[slot.video].video_index()
                assert index is not None
                later = cut._later(samples[slot.video], index, slot)
                cuts = [cut._choose(samples[slot.video], index, slot, 0)[1], *(other for _, other in later)]
                with backend.open(data[slot.video], index) as reader:
                    reader.clips([c.indices for c in cuts], size=(SIDE, SIDE), crop=[c.crop for c in cuts])
            self.seconds = time.process_time() - began

    compare(
        "data_share_of_bare_decoding",
        Phase(stream),
        Bare(),
        "the stream against bare decoding and scaling of as many clips, 4 a video (CPU per clip; 1 is the limit)",
        count=BATCHES * BATCH,
        rounds=3,
    )
