"""`jepa data check`: what is wrong with shards is found, named and counted, and nothing else is."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jepa_data.errors import DataError
from jepa_data.inspect.check import Checked, check
from jepa_data.process_pool import WorkerFailure, run_in_processes
from jepa_data.shards import quarantine
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.quarantine import QUARANTINE
from jepa_data.shards.write import ShardWriter
from tests.edited import write_edited

Writer = Callable[..., Path]
Numbered = Callable[..., np.ndarray]


def test_sound_shards_have_no_findings(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 70, 8])
    counted = []
    found = check(folder, workers=1, progress=lambda done, total: counted.append((done, total)))
    assert (found.samples, found.sound, found.shards, found.frames) == (3, 3, 1, 84)
    assert found.findings == () and (folder / QUARANTINE).read_text() == ""
    assert counted == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.lines()[0].startswith("3 of 3 samples are sound: 84 frames decoded, 1 shard(s) hashed")


def test_flipped_bytes_are_found_by_both_checksums(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 7, 8])
    sample = ShardSet.open(folder).samples[1]
    offset, size = sample.members["mp4"]
    flip(folder / sample.shard, offset + size // 2)
    found = check(folder, workers=1)
    assert [(f.key, f.kind) for f in found.findings] == [("", "checksum"), ("ep-1", "damaged")]
    assert (found.samples, found.sound) == (3, 2)
    assert quarantine.read(folder / QUARANTINE) == {"train-000000.tar": {"ep-1"}}


def test_a_frame_that_cannot_be_decoded_is_found_although_the_checksums_fit(tmp_path: Path, numbered: Numbered) -> None:
    good, bad = encode_mp4(numbered(20), 10.0), bytearray(encode_mp4(numbered(20, 100), 10.0))
    start = bad.index(b"mdat") + 4
    size = int.from_bytes(bad[start - 8 : start - 4], "big") - 8
    bad[start + size * 7 // 8 : start + size] = bytes(size - size * 7 // 8)
    folder = written(tmp_path / "s", {"good": good, "bad": bytes(bad)})
    found = check(folder, workers=1)
    assert {f.key for f in found.findings} == {"bad"} and found.sound == 1


def test_parts_that_do_not_fit_are_distinguished(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 6, 6, 6])
    index = folder / "train-000000.index.jsonl"
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    lines[0]["pts"][0][2] = lines[0]["frames"] = 5  # one frame fewer than the video has
    lines[1]["width"] = 128
    lines[2]["labels"]["parity"] = 1
    index.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "index.npy").unlink()  # says where the lines were
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["label_values"] = {"parity": ["even"]}  # sample 3 is odd
    write_edited(folder / "manifest.json", manifest)
    assert [(f.key, f.kind, f.detail) for f in check(folder, workers=1).findings] == [
        ("ep-0", "index", "the index and the video differ in frames (5 and 6)"),
        ("ep-1", "index", "the index and the video differ in width (128 and 64)"),
        ("ep-1", "labels", "parity is 1, expected -1 to 0"),
        ("ep-2", "labels", "parity is 0, the index says 1"),
        ("ep-3", "labels", "parity is 1, expected -1 to 0"),
    ]


def test_a_shard_cut_short_names_what_is_lost(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 7, 8])
    tar = folder / "train-000000.tar"
    os.truncate(tar, ShardSet.open(folder).samples[2].members["mp4"][0] + 10)
    found = check(folder, workers=1)
    assert [(f.key, f.kind) for f in found.findings] == [("", "truncated"), ("ep-2", "lost")]
    assert found.sound == 2


def test_the_stream_can_leave_out_what_is_listed(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6] * 5, shard_bytes=8_000)
    shards = ShardSet.open(folder)
    assert len(shards.manifest.splits["train"].shards) > 1
    sample = shards.samples[3]
    flip(folder / sample.shard, sample.members["mp4"][0] + 100)
    check(folder, workers=1, quarantine_file=tmp_path / "q.jsonl")
    keys = quarantine.read(tmp_path / "q.jsonl")
    assert quarantine.listed(shards, "train", keys).tolist() == [False, False, False, True, False]


def test_a_line_that_is_none_of_a_quarantine_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"key": "a", "shard": "b"}\nmine\n')
    with pytest.raises(DataError, match=r"q\.jsonl:2: expected a line such as .*'mine'"):
        quarantine.read(tmp_path / "q.jsonl")


def test_a_quarantine_file_that_an_editor_saved_is_read(tmp_path: Path) -> None:
    text = '{"key": "a", "shard": "b.tar", "detail": "one\u2028two"}\r\n\r\n{"key": "c", "shard": "b.tar"}\r\n'
    (tmp_path / "q.jsonl").write_bytes(text.encode("utf-8-sig"))
    assert quarantine.read(tmp_path / "q.jsonl") == {"b.tar": {"a", "c"}}


def test_a_quarantine_file_that_cannot_be_written_is_reported_before_the_work(
    tmp_path: Path, write_shards: Writer
) -> None:
    folder = write_shards(tmp_path / "s", [6])
    seen: list[int] = []
    with pytest.raises(DataError, match=r"cannot be written \(No such file or directory\)\. Give another file"):
        check(folder, quarantine_file=tmp_path / "nowhere" / "q.jsonl", progress=lambda done, total: seen.append(done))
    assert not seen


def misbehave(job: str, alive: Callable[[], None]) -> str:
    """A decoder that does what it is told: crash, hang, be slow, or work."""
    if job == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "exit":
        os._exit(3)
    if job == "hang":
        time.sleep(600)
    if job == "slow":
        for _ in range(20):
            time.sleep(0.2)
            alive()
    if job == "raise":
        raise DataError("the folder is gone")
    return job.upper()


def test_a_crash_and_a_hang_cost_themselves_and_nothing_else() -> None:
    jobs = ["a", "crash", "b", "hang", "c", "slow", "exit", "d"]
    began = time.monotonic()
    found = dict(run_in_processes(misbehave, jobs, processes=2, timeout_seconds=3.0))
    assert found["crash"] == WorkerFailure("crashed", "its decoder ended the process (SIGSEGV)")
    assert found["exit"] == WorkerFailure("crashed", "its decoder ended the process (exit code 3)")
    assert found["hang"] == WorkerFailure("timeout", "nothing was heard of it for 3 s")
    assert found["slow"] == "SLOW"  # four seconds in all, and never silent for three
    assert [found[job] for job in "abcd"] == ["A", "B", "C", "D"] and len(found) == len(jobs)
    assert time.monotonic() - began < 300  # the one that hangs would take 600


def test_an_error_of_the_work_itself_is_raised() -> None:
    with pytest.raises(DataError, match="the folder is gone"):
        list(run_in_processes(misbehave, ["a", "raise"], processes=1, timeout_seconds=5.0))


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def written(out: Path, videos: dict[str, bytes]) -> Path:
    with ShardWriter(
        out, fps=10, image_size=64, world=None, action_size=0, state_names=[], label_names=[], seed=0
    ) as writer:
        for key, data in videos.items():
            writer.write("train", key, data, 20, None, None, {})
    return out


def test_the_report_counts_kinds_and_shows_the_first(tmp_path: Path) -> None:
    findings = tuple(quarantine.Finding(f"k{i}", "s.tar", "damaged" if i else "empty", "why") for i in range(12))
    lines = Checked(20, 8, 1, 100, findings, (), 2.0, tmp_path / "q.jsonl").lines()
    assert lines[0].startswith("8 of 20 samples are sound") and "50 frames a second" in lines[0]
    assert lines[2:4] == ["      11  damaged", "       1  empty"] and lines[-1] == "  … and 2 more"
