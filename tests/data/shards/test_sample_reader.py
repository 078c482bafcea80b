"""From the bytes of a sample to clips: each frame decoded once for all clips of a video, within its limits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jepa_data.config import StreamConfig
from jepa_data.decode import Crop, Limits, Source, VideoIndex
from jepa_data.decode.base import LIMITS
from jepa_data.decode.pyav import PyAVBackend, PyAVReader
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.local import LocalStore
from jepa_data.shards.manifest import Sample
from jepa_data.shards.read import ClipSpec, SampleReader, ShardFiles
from jepa_data.shards.write import ShardWriter
from jepa_data.stream.loader import make_loader

FRAMES = 60


class Counting(PyAVBackend):
    """PyAV, which remembers its readers: they know how many frames they decoded."""

    def __init__(self) -> None:
        self.readers: list[PyAVReader] = []

    def open(self, src: Source, index: VideoIndex | None = None, limits: Limits = LIMITS) -> PyAVReader:
        self.readers.append(super().open(src, index, limits))
        return self.readers[-1]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, numbered: Callable[..., NDArray[np.uint8]]) -> ShardSet:
    """One video with one keyframe: each pass over it begins at its first frame."""
    out = tmp_path_factory.mktemp("reader") / "s"
    with ShardWriter(
        out, fps=10.0, image_size=64, world=None, action_size=0, state_names=[], label_names=[], seed=0
    ) as writer:
        video = encode_mp4(numbered(FRAMES), 10.0, gop=FRAMES)
        writer.write("train", "v", video, FRAMES, None, None, {})
    return ShardSet.open(out)


def reader(shards: ShardSet, backend: PyAVBackend, waiting: int, whole: int = 0) -> SampleReader:
    return SampleReader(shards.store, backend, Limits(), (32, 32), whole, waiting)


@pytest.mark.parametrize("crops", [[None, None, None], [(0, 0, 64, 64), (16, 16, 32, 32), (0, 0, 32, 48)]])
def test_the_clips_of_a_video_are_decoded_in_one_pass_whatever_their_crops(
    crops: list[Crop | None], shards: ShardSet
) -> None:
    sample: Sample = shards.samples[0]
    cuts = [
        ClipSpec(np.arange(a, b, 2), crop) for (a, b), crop in zip(((30, 46), (10, 26), (40, 56)), crops, strict=True)
    ]
    alone = [reader(shards, PyAVBackend(), 0).clips(sample, cut)[0] for cut in cuts]
    backend = Counting()
    shared = reader(shards, backend, 2**20)
    places = [(0, 0, 7), (0, 0, 8)]
    first, decoded = shared.clips(sample, cuts[0], list(zip(places, cuts[1:], strict=True)))
    found = [first, *(shared.take(place) for place in places)]
    for clip, expected in zip(found, alone, strict=True):
        images = clip if isinstance(clip, np.ndarray) else clip[0] if clip else None
        np.testing.assert_array_equal(images, expected)
    assert [r.decoded for r in backend.readers] == [55], "frames 0 to 54, each once"
    assert shared.take(places[0]) is None, "a clip is handed out once"
    assert decoded.index.frames == FRAMES


def test_clips_that_would_not_fit_are_not_kept(shards: ShardSet) -> None:
    backend, sample = Counting(), shards.samples[0]
    cut, later = ClipSpec(np.arange(8), None), ClipSpec(np.arange(50, 58), None)
    shared = reader(shards, backend, 8 * 32 * 32 * 3 - 1)
    shared.clips(sample, cut, [((0, 0, 1), later)])
    assert shared.take((0, 0, 1)) is None and backend.readers[0].decoded == 8, "the other clip was not decoded either"


def test_a_small_video_is_decoded_once_for_good(shards: ShardSet) -> None:
    backend, sample = Counting(), shards.samples[0]
    kept = reader(shards, backend, 0, whole=16 * FRAMES * 32 * 32 * 3)
    for start in (0, 20, 40):
        images, _ = kept.clips(sample, ClipSpec(np.arange(start, start + 8), None))
        alone, _ = reader(shards, PyAVBackend(), 0).clips(sample, ClipSpec(np.arange(start, start + 8), None))
        np.testing.assert_array_equal(images, alone)
    assert [r.decoded for r in backend.readers] == [FRAMES]


@pytest.mark.parametrize("crop", [None, {"scale": (0.3, 0.9)}])
def test_a_stream_of_several_clips_a_video_decodes_a_video_once_for_them(
    crop: dict[str, Any] | None, shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Counting()
    monkeypatch.setattr("jepa_data.stream.clips.get_backend", lambda name: backend)
    settings: dict[str, Any] = {"shards": shards.url, "batch_size": 1, "clip_frames": 8, "clips_per_video": 4}
    settings |= {"image_size": 32, "crop": crop, "cache_mib": 2}
    loader = make_loader(StreamConfig.model_validate(settings), "train", seed=0, total_batches=12)
    assert [batch.keys for batch in loader] == [("v",)] * 12
    assert len(backend.readers) == 3 and all(r.decoded <= FRAMES for r in backend.readers), "three epochs of four clips"


def test_a_video_in_random_crops_is_not_kept_for_a_later_epoch(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Counting()
    monkeypatch.setattr("jepa_data.stream.clips.get_backend", lambda name: backend)
    settings: dict[str, Any] = {"shards": shards.url, "batch_size": 1, "clip_frames": 8, "image_size": 32}
    settings |= {"crop": {"scale": (0.3, 0.9)}, "cache_mib": 64}
    list(make_loader(StreamConfig.model_validate(settings), "train", seed=0, total_batches=6))
    frames = [reader.decoded for reader in backend.readers]
    assert len(frames) == 6 and sum(frames) < 6 * FRAMES, "no more is decoded than each clip takes"


def test_a_video_that_takes_longer_than_it_may_is_named(shards: ShardSet) -> None:
    settings = {"shards": shards.url, "batch_size": 1, "clip_frames": 8, "decode_seconds": 1e-9}
    loader = make_loader(StreamConfig.model_validate(settings), "train", seed=0)
    with pytest.raises(DataError, match=r"16 samples in a row cannot be read; the last: train-000000\.tar v: timeout"):
        list(loader)


def test_the_threads_of_a_stream_share_what_they_decode(tmp_path: Path, shards: ShardSet) -> None:
    """Each takes what another decoded, and the memory for it is counted once."""
    settings: dict[str, Any] = {"shards": shards.url, "batch_size": 1, "clip_frames": 8, "workers": 4}
    settings |= {"worker_kind": "thread", "image_size": 32, "clips_per_video": 3}
    threaded = make_loader(StreamConfig.model_validate(settings), "train", seed=0, total_batches=30)
    plain = make_loader(StreamConfig.model_validate(settings | {"workers": 0}), "train", seed=0, total_batches=30)
    for a, b in zip(threaded, plain, strict=True):
        np.testing.assert_array_equal(a.video.numpy(), b.video.numpy())


def test_bytes_that_come_wrong_once_are_read_again(tmp_path: Path, write_shards: Callable[..., Path]) -> None:
    class Flaky(LocalStore):
        wrong = 1

        def read(self, name: str, start: int, size: int) -> bytes:
            data = super().read(name, start, size)
            if name.endswith(".tar") and self.wrong:
                self.wrong -= 1
                return bytes(size)
            return data

    folder = write_shards(tmp_path / "s", [6])
    sample, store = ShardSet.open(folder).samples[0], Flaky(folder)
    assert ShardFiles(store).read(sample) == ShardFiles(folder).read(sample)
    store.wrong = 2
    with pytest.raises(DecodeError, match="CRC-32"):
        ShardFiles(store).read(sample)
