"""`jepa data bench`: every stage is timed, backends stand side by side, waiting is measured."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from jepa_data.config import StreamConfig
from jepa_data.decode import get_backend
from jepa_data.errors import DataError, DecodeError
from jepa_data.inspect.bench import STAGES, Bench, Timing, bench, descendants, memory_of
from jepa_data.inspect.decode_only import decode_only
from jepa_data.shards.encode import encode_mp4
from jepa_data.stream.loader import ClipLoader

Writer = Callable[..., Path]
Numbered = Callable[..., np.ndarray]


def config(folder: Path, **settings: object) -> StreamConfig:
    return StreamConfig.model_validate({"shards": str(folder), "batch_size": 4, "clip_frames": 8} | settings)


def test_every_stage_is_timed_and_backends_stand_side_by_side(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [20] * 12)
    steps: list[tuple[int, int]] = []
    found = bench(
        config(folder, image_size=32, clips_per_video=2),
        "train",
        clips=8,
        backends=["pyav", "decord"],
        progress=lambda done, total: steps.append((done, total)),
    )
    pyav, decord = found.timings
    assert set(pyav.stages) == set(STAGES) and set(decord.stages) == set(STAGES) - {"scale"}
    assert min(pyav.stages["open"], pyav.stages["decode"], pyav.decode_only) > 0
    assert len(pyav.rounds) == len(decord.rounds) == 2 and pyav.clips_per_second > 0
    assert steps == [(i, 6) for i in range(1, 7)]
    told = json.loads(json.dumps(found.to_json()))["backends"]["pyav"]
    assert told["share_of_limit"] == pytest.approx(pyav.clips_per_second * pyav.decode_only / 1000 / found.cores)
    rows = {row[0]: row[1:] for row in found.rows()}
    assert rows["scale"][1].strip() == "(in decode)" and rows["loader"][0].endswith("clips/s")
    assert len({len(row) for row in found.rows()}) == 1


def test_waiting_is_measured_with_steps_of_a_given_length(
    tmp_path: Path, write_shards: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, now = write_shards(tmp_path / "s", [20] * 12), [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def deliver(loader: ClipLoader) -> Iterator[Any]:
        for batch in batches(loader):
            sleep(0.125)
            yield batch

    batches = ClipLoader.__iter__
    clock = SimpleNamespace(perf_counter=lambda: now[0], process_time=time.process_time, sleep=sleep)
    monkeypatch.setattr("jepa_data.inspect.bench.time", clock)
    monkeypatch.setattr(ClipLoader, "__iter__", deliver)
    found = bench(config(folder), "train", clips=8, step_seconds=0.5)
    (timing,) = found.timings
    assert timing.wait_share == pytest.approx(0.125 / (0.125 + 0.5))
    assert any(row[0] == "waiting, steps of 500 ms" for row in found.rows())


def test_the_memory_of_workers_is_reported(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [20] * 12)
    (timing,) = bench(config(folder, workers=1), "train", clips=8).timings
    assert timing.worker_mib is not None and 5 < timing.worker_mib < 2000
    assert len(timing.rounds) == 2


def test_processes_of_processes_are_found_and_their_memory_grows_with_what_they_hold() -> None:
    code = "import subprocess, sys; x = bytearray(60 * 2**20); print('up', flush=True); sys.stdin.read()"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        found = [pid for pid in descendants() if pid != process.pid]
        assert process.pid in descendants() and max(map(memory_of, found)) > 60
        process.communicate()
    assert process.pid not in descendants() and memory_of(process.pid) == 0.0 and memory_of(os.getpid()) > 10


def test_decoding_alone_jumps_over_what_it_does_not_need(numbered: Numbered) -> None:
    data = bytearray(encode_mp4(numbered(64), 10, gop=8))
    index = get_backend("pyav").probe(bytes(data))
    with av.open(io.BytesIO(data), "r") as container:
        places = {packet.pts: (packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size}
    needed = {16, 17, 18, 48, 49, 50}
    for number, pts in enumerate(index.pts.tolist()):
        if number not in needed:  # decoding any of these would fail, or be noticed by the frames after it
            position, size = places[pts]
            data[position : position + size] = b"\xff" * size
    assert decode_only(bytes(data), index, np.array([17, 18, 50])) > 0
    with pytest.raises(DecodeError):
        decode_only(bytes(data), index, np.array([19]))


def test_decoding_alone_names_a_damaged_video(numbered: Numbered) -> None:
    data = encode_mp4(numbered(16), 10)
    index = get_backend("pyav").probe(data)
    with pytest.raises(DecodeError):
        decode_only(data[:40], index, np.array([3]))


def test_a_backend_that_reads_nothing_of_the_folder_is_reported(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [20] * 3)
    for tar in folder.glob("*.tar"):
        tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(DataError, match="backend pyav could read none of 3 samples"):
        bench(config(folder), "train", clips=4)


def test_the_limit_is_the_cores_over_the_time_of_decoding_alone() -> None:
    timing = Timing("pyav", dict.fromkeys(STAGES, 1.0), decode_only=20.0, rounds=[30.0, 50.0, 40.0])
    settings = StreamConfig.model_validate({"shards": "s", "batch_size": 8, "clip_frames": 16, "workers": 2})
    found = Bench(settings, 64, 4, None, (timing,), load=0.8)
    assert found.limit(timing) == 200.0 and timing.clips_per_second == 40.0
    rows = {row[0]: row[1].strip() for row in found.rows()}
    assert rows["share of the limit"] == "0.20" and rows["keeps up with steps of"] == "200 ms"
    assert "other programs use this machine" in found.lines()[1]
