"""The same clips in the same order for any number of workers, threads and ranks, wherever a run was stopped."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_data.config import StreamConfig
from jepa_data.stream.loader import make_loader
from jepa_data.types import ClipBatch
from tests.data.lightning_cases import batches_in_training

LENGTHS = [12, 20, 15, 30, 11, 9, 25, 14, 18, 10]
CROP = {"scale": (0.3, 0.9), "ratio": (0.8, 1.25)}
Content = list[tuple[Any, ...]]
pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create"
)  # more workers than this machine has cores


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_shards: Callable[..., Path]) -> Path:
    return write_shards(tmp_path_factory.mktemp("exact") / "s", LENGTHS, shard_bytes=20_000)


def config(folder: Path, **settings: Any) -> StreamConfig:
    return StreamConfig.model_validate(
        {"shards": str(folder), "batch_size": 4, "clip_frames": 8, "cache_mib": 1, "clips_per_video": 2} | settings
    )


def content(batches: Iterable[ClipBatch]) -> Content:
    """All that a batch is made of, in a form that can be compared."""

    def of(x: torch.Tensor | None) -> Any:
        return None if x is None else hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()

    return [
        (b.keys, of(b.video), of(b.actions), of(b.states), of(b.start_seconds), of(b.seeds), of(b.labels["parity"]))
        for b in batches
    ]


@pytest.mark.parametrize("settings", [{}, {"crop": CROP, "image_size": 32, "start": "spread", "stride": 1}])
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_any_number_of_workers_delivers_the_same(folder: Path, kind: str, settings: dict[str, Any]) -> None:
    expected = content(make_loader(config(folder, **settings), "train", seed=3, total_batches=12))
    for workers in (1, 2, 4):
        loader = make_loader(
            config(folder, workers=workers, worker_kind=kind, **settings), "train", seed=3, total_batches=12
        )
        assert content(loader) == expected, f"{workers} workers"


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_the_frames_of_a_batch_are_those_it_says(
    folder: Path, kind: str, read_numbers: Callable[[Any], list[int]]
) -> None:
    settings = config(folder, workers=2, worker_kind=kind, clips_per_video=3)
    for batch in make_loader(settings, "train", seed=1, total_batches=8):
        assert batch.states is not None
        for i, key in enumerate(batch.keys):
            first = 100 * int(key[3:]) + round(float(batch.start_seconds[i]) * 10)
            numbers = read_numbers(batch.video[i].permute(0, 2, 3, 1).numpy())
            assert numbers == list(range(first, first + 8)) == batch.states[i, :, 0].tolist()


def test_a_run_goes_on_exactly_with_any_other_workers_wherever_it_stops(folder: Path) -> None:
    """Twenty batches of five an epoch, taken in legs by other workers each time; some legs end where an epoch does."""
    expected = content(make_loader(config(folder), "train", seed=7, total_batches=20))
    legs = [
        (1, 0, "process"),
        (2, 2, "thread"),
        (5, 2, "process"),
        (8, 1, "process"),
        (10, 4, "thread"),
        (20, 1, "thread"),
    ]
    taken: Content = []
    state = {"batch": 0}
    for end, workers, kind in legs:
        loader = make_loader(config(folder, workers=workers, worker_kind=kind), "train", seed=7, total_batches=20)
        loader.load_state_dict(json.loads(json.dumps(state)))
        taken += content(islice(loader, end - len(taken)))
        assert taken == expected[:end]
        state = loader.state_dict()
    assert state["batch"] == 20


def test_a_pass_goes_on_in_the_next_one_whatever_the_workers(folder: Path) -> None:
    expected = content(make_loader(config(folder), "train", seed=7, total_batches=12))
    loader = make_loader(config(folder, workers=2), "train", seed=7, total_batches=4)
    assert content(loader) + content(loader) + content(loader) == expected


def test_every_clip_once_an_epoch_by_processes(folder: Path) -> None:
    loader = make_loader(config(folder, workers=2), "train", seed=0, total_batches=15)  # three epochs of 20 clips
    keys = [key for batch in loader for key in batch.keys]
    for first in range(0, 60, 20):
        assert Counter(keys[first : first + 20]) == Counter({f"ep-{i}": 2 for i in range(10)})


def test_the_whole_loader_resumes_as_fast_at_batch_100_000_as_at_batch_10(folder: Path) -> None:
    def seconds(batch: int) -> float:
        began = time.process_time()  # other processes on the machine do not count
        loader = make_loader(config(folder), "train", seed=0, total_batches=200_000, start_batch=batch)
        assert len(next(iter(loader))) == 4 and loader.state_dict()["batch"] == batch + 1
        return time.process_time() - began

    near, far = (min(seconds(b) for _ in range(7)) for b in (10, 100_000))
    assert far < 3 * near + 0.1  # drawing the batches before it takes seconds


RANK = """
import hashlib, json, sys
import torch.distributed as dist
from jepa_data.config import StreamConfig
from jepa_data.stream.loader import make_loader

folder, store, world, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[5]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(sys.argv[4]), world_size=world)
config = StreamConfig(shards=folder, batch_size=4, clip_frames=8, clips_per_video=2, workers=1, worker_kind="thread")
loader = make_loader(config, "train", seed=5, total_batches=12, rank=dist.get_rank(), world_size=world)
batches = []
for batch in loader:
    mine = [(k, hashlib.sha256(v.numpy().tobytes()).hexdigest(), s) for k, v, s in
            zip(batch.keys, batch.video, batch.seeds.tolist())]
    parts = [None] * world
    dist.all_gather_object(parts, mine)
    batches.append([clip for part in parts for clip in part])
if dist.get_rank() == 0:
    json.dump(batches, open(out, "w"))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow  # seven processes import torch
def test_one_two_and_four_ranks_read_the_same_global_batches(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    found = []
    for world in (1, 2, 4):
        out = tmp_path / f"{world}.json"
        ranks = [
            subprocess.Popen(
                [
                    sys.executable,
                    str(script),
                    str(folder),
                    str(tmp_path / f"store-{world}"),
                    str(world),
                    str(rank),
                    str(out),
                ],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
            for rank in range(world)
        ]
        assert [rank.wait(timeout=120) for rank in ranks] == [0] * world
        found.append(json.loads(out.read_text()))
    assert len(found[0]) == 12 and all(len(batch) == 4 for batch in found[0])
    assert found[0] == found[1] == found[2]


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 with torch 2.14
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_lightnings_checkpoint_goes_on_with_other_workers_across_an_epochs_end(folder: Path, tmp_path: Path) -> None:
    def run(resume: Path | None, **settings: Any) -> Content:
        loader = make_loader(config(folder, **settings), "train", seed=2, total_batches=13)
        return content(batches_in_training(loader, tmp_path, resume))

    whole = run(None, workers=2)
    assert whole == content(make_loader(config(folder), "train", seed=2, total_batches=13))
    # An epoch has five batches: stopped within the first, at its end, and in the third.
    for step, settings in ((3, {"workers": 1}), (5, {"workers": 3, "worker_kind": "thread"}), (11, {"workers": 0})):
        assert run(tmp_path / f"{step}.ckpt", **settings) == whole[step:]
