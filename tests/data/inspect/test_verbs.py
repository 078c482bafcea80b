"""`jepa data inspect`, `check`, `bench` and `index` as a person types them: what is printed, and the exit code."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer

from jepa.cli import main
from jepa.cli.data import inspect as looking
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet

Writer = Callable[..., Path]
Jepa = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Jepa:
    """Exit code, stdout, stderr of a verb."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    for verb in (looking.inspect, looking.check, looking.bench, looking.index):
        app.command()(verb)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments], app)
        told = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, told.out, told.err

    return call


def test_inspect_prints_text_json_a_sheet_or_a_mix(tmp_path: Path, write_shards: Writer, run: Jepa) -> None:
    one, two = write_shards(tmp_path / "a", [10, 20]), write_shards(tmp_path / "b", [10])
    code, out, _ = run("inspect", one, "--sheet", tmp_path / "s.png")
    assert code == 0 and "2 samples in 1 shard(s)" in out and "first, middle and last frame of 2 samples" in out
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(run("inspect", one, "--json")[1])["splits"]["train"]["samples"] == 2
    assert "66.7%" in run("inspect", one, two)[1]
    assert run("inspect", one, two, "--sheet", tmp_path / "s.png")[0] == 2
    assert run("inspect", tmp_path / "nowhere")[0] == 2


def test_check_ends_with_1_if_anything_is_wrong(tmp_path: Path, write_shards: Writer, run: Jepa) -> None:
    folder = write_shards(tmp_path / "s", [6, 7])
    assert run("check", folder, "--workers", 1)[0] == 0
    sample = ShardSet.open(folder).samples[0]
    data = bytearray((folder / sample.shard).read_bytes())
    data[sample.members["mp4"][0] + 50] ^= 255
    (folder / sample.shard).write_bytes(data)
    code, out, _ = run("check", folder, "--workers", 1, "--json", "--quarantine", tmp_path / "q.jsonl")
    assert code == 1 and json.loads(out)["kinds"] == {"checksum": 1, "damaged": 1}
    assert len((tmp_path / "q.jsonl").read_text().splitlines()) == 2
    assert run("check", folder, "--backend", "mine")[0] == 2


def test_bench_takes_a_folder_or_the_data_of_a_config(tmp_path: Path, write_shards: Writer, run: Jepa) -> None:
    folder = write_shards(tmp_path / "s", [20] * 8)
    code, out, _ = run("bench", folder, "--workers", 0, "--clips", 4, "--batch-size", 2)
    assert code == 0 and "share of the limit" in out and out.startswith("4 clips of 16 frames")
    config = tmp_path / "run.yaml"
    config.write_text(f"""
run: r
data: {{shards: {folder}, batch_size: 2, clip_frames: 5, image_size: 32}}
encoder: {{kind: conv}}
method: {{kind: lewm}}
trainer: {{steps: 1}}
""")
    code, out, _ = run("bench", "--config", config, "--clip-frames", 7, "--clips", 4, "--json")
    told = json.loads(out)
    assert code == 0 and (told["config"]["clip_frames"], told["config"]["image_size"]) == (7, 32)
    assert run("bench")[2] == "error: say what to read: SHARDS, or --config run.yaml\n"


def test_index_says_what_comes_next(tmp_path: Path, numbered: Callable[..., np.ndarray], run: Jepa) -> None:
    video = encode_mp4(numbered(6), 10)
    with tarfile.open(tmp_path / "val-0.tar", "w") as archive:
        info = tarfile.TarInfo("a.mp4")
        info.size = len(video)
        archive.addfile(info, io.BytesIO(video))
    code, out, _ = run("index", tmp_path, "--workers", 1)
    assert code == 0 and "val      1 samples in 1 tar(s), 6 frames" in out
    assert out.endswith(f"next: jepa data inspect {tmp_path}\n")
    assert run("index", tmp_path)[0] == 2
