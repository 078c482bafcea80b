"""The memory of the stream: little for ten million samples, nothing more for each worker, nothing more with time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jepa_data.decode import get_backend
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.table import ROW
from jepa_data.shards.write import ShardWriter
from tests.edited import write_edited

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured with /proc")
MIB = 2**20
SHARD = 1000  # samples

MEASURE = """
import json, multiprocessing, sys, time
from jepa_data.config import StreamConfig
from jepa_data.stream.loader import make_loader


def memory(file, names):
    found = dict(line.split(":") for line in open(file) if line.split(":")[0] in names)
    return sum(int(value.split()[0]) for value in found.values()) * 1024


def workers():
    pids = [child.pid for child in multiprocessing.active_children()]
    return [memory(f"/proc/{pid}/smaps_rollup", ("Private_Clean", "Private_Dirty")) for pid in pids]


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    marks = job.pop("marks")
    config = StreamConfig.model_validate_json(json.dumps(job))
    began = time.perf_counter()
    loader = make_loader(config, "train", seed=0, total_batches=marks[-1] + 10)
    stream, private = iter(loader), []
    first = next(stream)
    seconds = time.perf_counter() - began
    for batch in range(2, marks[-1]):
        if batch in marks:
            private.append(max(workers()))
        next(stream)
    private.append(max(workers()))
    stream.close()
    peak = memory("/proc/self/status", ("VmHWM",))
    found = {"peak": peak, "private": private, "seconds": seconds}
    print(json.dumps(found | {"samples": len(loader.corpora[0]), "notes": loader.notes}))
"""


def measured(tmp_path: Path, **job: Any) -> dict[str, Any]:
    """Memory in bytes, in a process of its own: its `peak`, and what is `private` to a worker, at each of `marks`."""
    script = tmp_path / "measure.py"
    script.write_text(MEASURE)
    defaults = {"batch_size": 8, "clip_frames": 4, "workers": 2, "cache_mib": 4, "marks": [4]}
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(defaults | job)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def write_shard(out: Path, samples: int, numbered: Callable[..., NDArray[np.uint8]]) -> Path:
    """One shard of tiny videos, of two lengths in turn."""
    videos = [encode_mp4(numbered(frames, 0, 32), 10.0) for frames in (8, 5)]
    indices = [get_backend("pyav").probe(video) for video in videos]
    with ShardWriter(
        out, fps=10.0, image_size=32, world=None, action_size=0, state_names=[], label_names=[], seed=0
    ) as writer:
        for i in range(samples):
            video, index = videos[i % 2], indices[i % 2]
            writer.write("train", f"v-{i}", video, index.frames, None, None, {}, index=index)
    return out


def multiplied(one: Path, out: Path, shards: int) -> Path:
    """A corpus of so many links to one shard, with a table of all their samples."""
    out.mkdir()
    manifest = json.loads((one / "manifest.json").read_text())
    split = manifest["splits"]["train"]
    (record,) = split["shards"]
    split["shards"] = [record | {"file": f"train-{i:06d}.tar"} for i in range(shards)]
    write_edited(out / "manifest.json", manifest)
    rows = np.load(one / "index.npy")
    table = np.lib.format.open_memmap(out / "index.npy", mode="w+", dtype=ROW, shape=(shards * len(rows),))
    for i in range(shards):
        for ending in ("tar", "index.jsonl"):
            os.link(one / f"train-000000.{ending}", out / f"train-{i:06d}.{ending}")
        rows["shard"] = i
        table[i * len(rows) : (i + 1) * len(rows)] = rows
    table.flush()
    return out


@pytest.mark.slow
def test_two_million_samples_cost_little_and_workers_share_them(
    tmp_path: Path, numbered: Callable[..., NDArray[np.uint8]]
) -> None:
    one = write_shard(tmp_path / "one", SHARD, numbered)
    many = multiplied(one, tmp_path / "many", 2000)
    small, large = measured(tmp_path, shards=str(one)), measured(tmp_path, shards=str(many))
    table = large["samples"] * ROW.itemsize
    assert large["samples"] == 2_000_000 and large["peak"] - small["peak"] < 2 * table
    assert max(large["private"]) - max(small["private"]) < table / 3, "the table is not copied"


@pytest.mark.slow
def test_ten_million_samples_cost_less_than_a_gigabyte_and_workers_share_them(
    tmp_path: Path, numbered: Callable[..., NDArray[np.uint8]]
) -> None:
    """With all samples, with half of them, and with some lost."""
    shards, total = 10_000, 10_000 * SHARD
    one = write_shard(tmp_path / "one", SHARD, numbered)
    many = multiplied(one, tmp_path / "many", shards)
    cut = multiplied(one, tmp_path / "cut", shards)
    last = cut / f"train-{shards - 1:06d}.tar"
    data = last.read_bytes()
    last.unlink()
    last.write_bytes(data[: len(data) // 2])
    small = measured(tmp_path, shards=str(one))
    large = [
        measured(tmp_path, shards=str(many)),
        measured(tmp_path, shards=str(many), clip_frames=6, short="skip"),
        measured(tmp_path, shards=str(cut), fps=5.0, clip_frames=2),
    ]
    assert large[0]["samples"] == total and large[1]["samples"] == total // 2
    assert total - SHARD < large[2]["samples"] < total and "cut short" in large[2]["notes"][0]
    table = total * ROW.itemsize
    for found, tables in zip(large, (2, 2, 4), strict=True):  # where some are lost, the table is put together anew
        assert found["peak"] - small["peak"] < tables * table, f"{found['peak'] / MIB:.0f} MiB"
        assert max(found["private"]) - max(small["private"]) < table / 3, "the table is not copied"
    assert max(large[0]["peak"], large[1]["peak"]) < 10**9


@pytest.mark.slow
@pytest.mark.parametrize("clips", [1, 2])
def test_the_memory_of_a_worker_is_flat_over_twenty_thousand_clips(
    clips: int, tmp_path: Path, numbered: Callable[..., NDArray[np.uint8]]
) -> None:
    one = write_shard(tmp_path / "one", SHARD, numbered)
    many = multiplied(one, tmp_path / "many", 100)  # more files than are kept open
    settings = {"batch_size": 50, "clip_frames": 3, "clips_per_video": clips, "workers": 1}
    early, middle, late = measured(tmp_path, shards=str(many), marks=[100, 250, 400], **settings)["private"]
    assert abs(middle - early) < 8 * MIB and abs(late - early) < 8 * MIB, (early, middle, late)
