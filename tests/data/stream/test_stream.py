"""The stream's order is a function of (seed, epoch, place): nothing else may change what stands in a batch."""

import dataclasses
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError, DecodeError
from jepa_data.inspect.check import check
from jepa_data.shards.index import ShardSet
from jepa_data.shards.quarantine import write
from jepa_data.stream.loader import make_loader
from jepa_data.stream.plan import BatchPlan, SourcePlan
from jepa_data.types import ClipBatch
from tests.data.lightning_cases import batches_in_training
from tests.data.video_cases import needs

LENGTHS = [12, 20, 15, 30, 11, 9, 25, 14, 18, 10]
Batch = tuple[tuple[str, ...], bytes, list[float]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_shards: Callable[..., Path]) -> Path:
    return write_shards(tmp_path_factory.mktemp("stream") / "s", LENGTHS, shard_bytes=20_000)


def config(folder: Path, **settings: Any) -> StreamConfig:
    return StreamConfig(**{"shards": str(folder), "batch_size": 4, "clip_frames": 8, "cache_mib": 0} | settings)


def content(batches: Iterable[ClipBatch]) -> list[Batch]:
    """All that a batch is made of, in a form that can be compared."""
    return [(b.keys, b.video.numpy().tobytes(), b.start_seconds.tolist()) for b in batches]


def keys(batches: Iterable[ClipBatch]) -> list[str]:
    return [key for batch in batches for key in batch.keys]


def test_video_actions_states_and_labels_belong_together(
    folder: Path, read_numbers: Callable[[Any], list[int]]
) -> None:
    for batch in make_loader(config(folder), "train", seed=0, total_batches=6):
        assert batch.video.shape == (4, 8, 3, 64, 64) and batch.video.dtype == torch.uint8
        assert batch.actions is not None and batch.states is not None
        for i, key in enumerate(batch.keys):
            first = 100 * int(key[3:]) + round(float(batch.start_seconds[i]) * 10)
            numbers = read_numbers(batch.video[i].permute(0, 2, 3, 1).numpy())
            assert numbers == list(range(first, first + 8))
            assert batch.states[i, :, 0].tolist() == numbers
            assert batch.actions[i].tolist() == [[n, n + 1] for n in numbers[:-1]]
            assert batch.labels["parity"][i] == int(key[3:]) % 2


def test_a_lower_rate_puts_the_actions_between_its_frames_side_by_side(folder: Path) -> None:
    loader = make_loader(config(folder, fps=5.0, clip_frames=4), "train", seed=0)
    assert loader.action_size == 4
    for batch in loader:
        assert batch.actions is not None and batch.states is not None
        first = batch.states[:, :-1]
        assert torch.equal(batch.states[:, 1:], first + 2)
        assert torch.equal(batch.actions, torch.cat([first, first + 1, first + 1, first + 2], dim=2))
    with pytest.raises(DataError, match=r"data.fps: 4 does not divide 10"):
        make_loader(config(folder, fps=4.0, clip_frames=2), "train", seed=0)


def test_any_number_of_workers_yields_the_same_batches(folder: Path) -> None:
    streams = [
        content(make_loader(config(folder, workers=workers), "train", seed=3, total_batches=7)) for workers in (0, 1, 2)
    ]
    assert len(streams[0]) == 7
    assert streams[0] == streams[1] == streams[2]


def test_every_epoch_holds_every_video_once_in_another_order(folder: Path) -> None:
    n = len(LENGTHS)
    order = keys(make_loader(config(folder), "train", seed=0, total_batches=10))  # 40 clips, 4 epochs
    epochs = [order[i : i + n] for i in range(0, 40, n)]
    assert all(sorted(epoch) == sorted(f"ep-{i}" for i in range(n)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert keys(make_loader(config(folder), "train", seed=1, total_batches=10)) != order
    assert keys(make_loader(config(folder), "train", seed=0, total_batches=10)) == order


def test_clips_of_a_video_start_anywhere_it_allows(tmp_path: Path, write_shards: Callable[..., Path]) -> None:
    folder, starts = write_shards(tmp_path / "s", [12, 8, 9]), dict[str, set[int]]()
    for batch in make_loader(config(folder, cache_mib=64), "train", seed=0, total_batches=30):
        for key, seconds in zip(batch.keys, batch.start_seconds.tolist(), strict=True):
            starts.setdefault(key, set()).add(round(seconds * 10))
    assert starts == {"ep-0": {0, 1, 2, 3, 4}, "ep-1": {0}, "ep-2": {0, 1}}


@pytest.mark.parametrize(("shards", "window"), [((10,), 64), ((4, 3, 9, 1, 5), 64), ((4, 3, 9, 1, 5, 8), 2)])
@pytest.mark.parametrize(("clips", "batch"), [(1, 4), (3, 4), (4, 2), (2, 7)])
def test_a_plan_covers_each_clip_once_an_epoch(shards: tuple[int, ...], window: int, clips: int, batch: int) -> None:
    source = SourcePlan(shards, clips, run=4 * batch, window_shards=window, seed=5)
    plan = BatchPlan((source,), (1.0,), batch, seed=5, endless=True)
    slots = [slot for b in range(4 * plan.epoch_batches) for slot in plan.batch(b)]
    orders = []
    for epoch in range(3):
        found = [(slot.video, slot.clip) for slot in slots if slot.epoch == epoch]
        assert Counter(found) == Counter({(v, c): 1 for v in range(sum(shards)) for c in range(clips)})
        orders.append(tuple(found))
    assert len(set(orders)) == 3


def test_clips_of_a_video_stand_at_one_place_of_batches_four_apart() -> None:
    source = SourcePlan((64,), 3, run=32, window_shards=64, seed=5)
    plan = BatchPlan((source,), (1.0,), 8, seed=5, endless=True)
    places = {(slot.video, slot.clip): (b, i) for b in range(24) for i, slot in enumerate(plan.batch(b))}
    for video in range(64):
        batch, place = places[video, 0]
        assert [places[video, clip] for clip in (1, 2)] == [(batch + 4, place), (batch + 8, place)]
        slot = plan.batch(batch)[place]
        assert source.later(slot) == [plan.batch(batch + 4)[place], plan.batch(batch + 8)[place]]


@pytest.mark.parametrize("weights", [(3.0, 1.0), (0.7, 0.2, 0.1), (1.0, 1.0, 1.0), (0.985, 0.015)])
@pytest.mark.parametrize("batch", [4, 8, 30])
def test_a_mix_gives_each_source_its_share_of_every_batch(weights: tuple[float, ...], batch: int) -> None:
    sizes = (40, 7, 23)[: len(weights)]
    sources = tuple(SourcePlan((size,), 1, 4 * batch, 64, 5, number) for number, size in enumerate(sizes))
    plan = BatchPlan(sources, weights, batch, seed=5, endless=True)
    total = Counter[int]()
    taken: list[list[int]] = [[] for _ in weights]
    for b in range(200):
        assert plan.drawn(b) == [total[s] for s in range(len(weights))]
        slots = plan.batch(b)
        found = Counter(slot.source for slot in slots)
        total += found
        for s, weight in enumerate(weights):
            share = weight / sum(weights) * batch
            assert abs(found[s] - share) < 1 and abs(total[s] - share * (b + 1)) < len(weights)
            taken[s] += [slot.video for slot in slots if slot.source == s]
    for size, videos in zip(sizes, taken, strict=True):
        for first in range(0, len(videos) - size, size):
            assert sorted(videos[first : first + size]) == list(range(size)), "each source goes through its own epochs"
    halves = [BatchPlan(sources, weights, batch, 5, True, rank, 2) for rank in (0, 1)]
    assert all(plan.batch(b) == halves[0].batch(b) + halves[1].batch(b) for b in range(70))


def test_any_batch_is_found_as_fast_as_the_first() -> None:
    source = SourcePlan((300,) * 2000, 2, 128, 64, seed=1)
    plan = BatchPlan((source,), (1.0,), 32, seed=1, endless=True)

    def seconds(batch: int) -> float:
        fresh = dataclasses.replace(plan, sources=(dataclasses.replace(source),))
        began = time.process_time()  # other processes on the machine do not count
        fresh.batch(batch)
        return time.process_time() - began

    near, far = (min(seconds(b) for _ in range(5)) for b in (10, 100_000))
    assert far < 3 * near + 0.05  # drawing the batches before it takes seconds


@pytest.mark.parametrize("stop", [0, 3, 7])
def test_a_loader_that_resumes_yields_the_rest(folder: Path, stop: int) -> None:
    whole = make_loader(config(folder), "train", seed=2, total_batches=7)
    expected = content(whole)
    first = make_loader(config(folder), "train", seed=2, total_batches=7)
    stream = iter(first)
    taken = content(next(stream) for _ in range(stop))
    second = make_loader(config(folder), "train", seed=2, total_batches=7)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    if stop == 7:  # the pass is over: what follows is the next one
        assert content(second) == content(whole)
    else:
        assert taken + content(second) == expected
        third = make_loader(config(folder), "train", seed=2, total_batches=7, start_batch=stop)
        assert content(third) == expected[stop:]
    assert len(second) == 7


def test_passes_follow_each_other_without_a_seam(folder: Path) -> None:
    long = content(make_loader(config(folder), "train", seed=2, total_batches=9))
    loader = make_loader(config(folder), "train", seed=2, total_batches=3)
    assert content(loader) + content(loader) + content(loader) == long


def test_ranks_share_out_the_same_global_batch(folder: Path) -> None:
    whole = content(make_loader(config(folder), "train", seed=2, total_batches=6))
    for world in (2, 4):
        ranks = [
            content(make_loader(config(folder), "train", seed=2, total_batches=6, rank=r, world_size=world))
            for r in range(world)
        ]
        for batch, parts in zip(whole, zip(*ranks, strict=True), strict=True):
            assert batch[0] == sum((part[0] for part in parts), ())
            assert batch[1] == b"".join(part[1] for part in parts)
    with pytest.raises(DataError, match="4 clips cannot be shared evenly by 3"):
        make_loader(config(folder), "train", seed=2, rank=0, world_size=3)


@pytest.mark.parametrize("clips", [1, 3])
@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_neither_cache_nor_decoder_changes_a_batch(folder: Path, clips: int, backend: str) -> None:
    needs(backend)
    plain = content(make_loader(config(folder, clips_per_video=clips), "train", seed=4, total_batches=12))
    for mib in (1, 5, 64):  # holds nothing, some videos, all
        settings = config(folder, clips_per_video=clips, cache_mib=mib, backend=backend)
        assert content(make_loader(settings, "train", seed=4, total_batches=12)) == plain


def test_evaluation_visits_every_sample_once_in_order_in_the_middle(folder: Path) -> None:
    loader = make_loader(config(folder), "train", seed=0, shuffle=False)
    batches = list(loader)
    assert len(loader) == len(batches) == 3 and [len(b) for b in batches] == [4, 4, 2]
    assert keys(batches) == [f"ep-{i}" for i in range(10)]
    starts = [round(10 * s) for b in batches for s in b.start_seconds.tolist()]
    assert all(abs(start - (length - 8) / 2) <= 0.5 for start, length in zip(starts, LENGTHS, strict=True))
    assert content(loader) == content(batches), "each pass starts at the beginning"
    given = make_loader(config(folder, start_seconds=0.1), "train", seed=0, shuffle=False)
    assert [s for b in given for s in b.start_seconds.tolist()] == pytest.approx([0.1] * 10)
    with pytest.raises(DataError, match=r"'ep-0'.*Lower data.start_seconds to 0.4"):
        list(make_loader(config(folder, start_seconds=0.5), "train", seed=0, shuffle=False))


def test_videos_shorter_than_a_clip_stop_the_run_or_are_left_out(folder: Path) -> None:
    with pytest.raises(DataError, match=r"'ep-4' has 11 frames, a clip needs 12 \(data.clip_frames\); 3 of 10"):
        make_loader(config(folder, clip_frames=12), "train", seed=0)
    loader = make_loader(config(folder, clip_frames=12, short="skip"), "train", seed=0, total_batches=7)
    assert loader.stats.short == 3
    assert set(keys(loader)) == {f"ep-{i}" for i, length in enumerate(LENGTHS) if length >= 12}
    with pytest.raises(DataError, match="all 10 videos are shorter"):
        make_loader(config(folder, clip_frames=31, short="skip"), "train", seed=0)
    with pytest.raises(DataError, match="8 at 2 fps"):
        make_loader(config(folder, fps=2.0), "train", seed=0)


def damage(folder: Path, number: int) -> None:
    """Overwrite the middle of a sample's video."""
    sample = ShardSet.open(folder).samples[number]
    offset, size = sample.members["mp4"]
    with (folder / sample.shard).open("r+b") as file:
        file.seek(offset + size // 3)
        file.write(bytes(size // 3))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_video_is_named_counted_and_replaced(
    workers: int, tmp_path: Path, write_shards: Callable[..., Path]
) -> None:
    folder = write_shards(tmp_path / "s", LENGTHS)
    log = tmp_path / "quarantine.jsonl"
    whole = list(make_loader(config(folder), "train", seed=0, total_batches=10))
    damage(folder, 6)
    loader = make_loader(config(folder, workers=workers, quarantine=str(log)), "train", seed=0, total_batches=10)
    batches = list(loader)
    replaced = 0
    for before, after in zip(whole, batches, strict=True):
        for i, key in enumerate(before.keys):
            if key == "ep-6":
                replaced += 1
                assert after.keys[i] != "ep-6"
            else:
                assert after.keys[i] == key and torch.equal(after.video[i], before.video[i])
    assert replaced == 4 and loader.stats.bad == 1 and loader.stats.clips == 40
    assert loader.bad["ep-6"].kind == "damaged"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["key"], line["shard"]) for line in lines] == [("ep-6", "train-000000.tar")]
    assert content(make_loader(config(folder), "train", seed=0, total_batches=10)) == content(batches)


def test_evaluation_drops_a_broken_sample_and_says_so(tmp_path: Path, write_shards: Callable[..., Path]) -> None:
    folder = write_shards(tmp_path / "s", LENGTHS)
    damage(folder, 6)
    loader = make_loader(config(folder), "train", seed=0, shuffle=False)
    assert keys(loader) == [f"ep-{i}" for i in range(10) if i != 6]
    assert list(loader.bad) == ["ep-6"]


def test_what_a_check_put_in_quarantine_is_left_out_from_the_start(
    tmp_path: Path, write_shards: Callable[..., Path]
) -> None:
    folder = write_shards(tmp_path / "s", LENGTHS, shard_bytes=20_000)
    damage(folder, 6)
    write(tmp_path / "q.jsonl", check(folder, workers=1).findings)
    loader = make_loader(config(folder, skip=str(tmp_path / "q.jsonl")), "train", seed=0, total_batches=20)
    assert set(keys(loader)) == {f"ep-{i}" for i in range(10) if i != 6}
    assert (loader.stats.skipped, loader.stats.bad) == (1, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_broken_samples_stop_the_run_with_their_names(
    workers: int, tmp_path: Path, write_shards: Callable[..., Path]
) -> None:
    folder = write_shards(tmp_path / "s", LENGTHS)
    damage(folder, 6)
    with pytest.raises(DataError, match=r"1 of 10 samples.*train-000000.tar ep-6 \(damaged\).*allows 0"):
        list(make_loader(config(folder, workers=workers, max_bad_fraction=0.0), "train", seed=0))
    damage(folder, 2)
    with pytest.raises(DataError, match="2 of 10 samples") as caught:
        list(make_loader(config(folder, workers=workers), "train", seed=0, total_batches=6))
    assert "ep-6" in str(caught.value) and "ep-2" in str(caught.value)
    assert len(list(make_loader(config(folder, workers=workers, max_bad_fraction=0.2), "train", seed=0))) == 3


def test_when_nothing_can_be_read_the_run_stops(tmp_path: Path, write_shards: Callable[..., Path]) -> None:
    folder = write_shards(tmp_path / "s", [9, 9])
    for number in range(2):
        damage(folder, number)
    with pytest.raises(DataError, match=r"16 samples in a row.*the last: train-\d+\.tar ep-"):
        list(make_loader(config(folder, max_bad_fraction=1.0), "train", seed=0))


def test_a_cut_shard_counts_against_the_budget(tmp_path: Path, write_shards: Callable[..., Path]) -> None:
    folder = write_shards(tmp_path / "s", LENGTHS)
    os.truncate(folder / "train-000000.tar", ShardSet.open(folder).samples[7].end)
    with pytest.raises(DataError, match=r"2 of 10 samples.*ep-8 \(cut off\), ep-9 \(cut off\)"):
        make_loader(config(folder), "train", seed=0)
    loader = make_loader(config(folder, max_bad_fraction=0.2), "train", seed=0)
    assert set(keys(loader)) == {f"ep-{i}" for i in range(8)}
    assert loader.stats.lost == 2 and "ep-8" in loader.notes[0]


def test_a_lost_index_does_not_change_the_stream(tmp_path: Path, write_shards: Callable[..., Path]) -> None:
    folder = write_shards(tmp_path / "s", LENGTHS)
    expected = content(make_loader(config(folder), "train", seed=0))
    (folder / "train-000000.index.jsonl").unlink()
    assert content(make_loader(config(folder), "train", seed=0)) == expected


def test_video_without_actions_streams_too(tmp_path: Path, write_shards: Callable[..., Path]) -> None:
    folder = write_shards(tmp_path / "s", [9, 12], actions=False)
    loader = make_loader(config(folder, batch_size=2, image_size=32, fps=3.0, clip_frames=3), "train", seed=0)
    batch = next(iter(loader))
    assert loader.action_size == 0 and batch.actions is None and batch.states is None
    assert batch.video.shape == (2, 3, 3, 32, 32)


def test_errors_keep_their_parts_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(DecodeError("damaged", "bits", "ep-1", "a.tar")))
    assert (error.kind, error.key, error.url, str(error)) == (
        "damaged",
        "ep-1",
        "a.tar",
        "a.tar: sample 'ep-1': damaged: bits",
    )


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 with torch 2.14
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_lightning_resumes_in_the_middle_of_an_epoch(folder: Path, tmp_path: Path) -> None:
    def run(resume: Path | None) -> list[tuple[str, ...]]:
        loader = make_loader(config(folder), "train", seed=2, total_batches=7)
        return [batch.keys for batch in batches_in_training(loader, tmp_path, resume, passes=2)]

    whole = run(None)
    assert whole == [batch.keys for batch in make_loader(config(folder), "train", seed=2, total_batches=14)]
    for step in (4, 7, 10):  # within the first pass over the loader, at its end, and within the second
        assert run(tmp_path / f"{step}.ckpt") == whole[step:]
