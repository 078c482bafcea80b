"""`jepa data pack` as a person sees it."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from numpy.typing import NDArray

from jepa.cli.app import main
from jepa.cli.data.pack import pack
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(pack)
    with pytest.raises(SystemExit) as end:
        main([str(one) for one in arguments], app)
    text = capsys.readouterr()
    return int(end.value.code or 0), text.out, text.err


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, numbered: Callable[..., NDArray[np.uint8]]) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for number in range(4):
        path = root / "ab"[number % 2] / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_mp4(numbered(45, 100 * number), 15, pixel_format="yuv420p"))
    (root / "b" / "broken.mp4").write_bytes(b"no")
    (root / "b" / "subtitles.srt").write_text("1")
    return root


def test_the_summary_counts_what_was_packed_and_says_what_comes_next(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, text, notes = run(capsys, videos, out, "--test-share", 0.5, "--processes", 1, "--min-seconds", 1)
    splits = ShardSet.open(out).manifest.splits
    assert code == 0 and sum(split.episodes for split in splits.values()) == 4
    assert ", ".join(f"{split.episodes} {name}" for name, split in splits.items()) + " samples, 0.2 min" in text
    assert "1 could not be read, listed in" in text and "b/broken.mp4: not a video" in text
    assert text.endswith(f"next: jepa data inspect {out}\n")
    assert "1 other files were left out: 1 .srt" in notes
    made = ShardSet.open(out).manifest.made
    assert (made["fps"], made["max_seconds"], made["video"], made["min_seconds"]) == (15.0, 60.0, "encode", 1.0)
    code, _, error = run(capsys, videos, out)
    assert code == 2 and error.splitlines()[-1].startswith(f"error: {out}: is packed already")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--copy", "--fps", "5"], "--copy keeps the frames"),
        (["--fps", "0"], "--fps: expected more than 0, found 0"),
        (["--crf", "60"], "--crf: expected 0"),
        (["--test-share", "1"], "test and val shares"),
        (["--min-seconds", "90"], "--min-seconds 90 is longer than --max-seconds 60"),
        (["--pixel-format", "rgb24"], "--pixel-format: expected yuv420p or yuv444p"),
        (["--shard-mib", "0"], "--shard-mib: expected at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    videos: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, videos, tmp_path / "out", *options)
    assert code == 2 and message in error.splitlines()[-1] and not (tmp_path / "out").exists()


def test_what_is_not_installed_is_named_with_its_extra(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("scenedetect", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it could not be imported
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    for arguments, message in (
        ((videos, tmp_path / "out", "--scenes"), "--scenes needs PySceneDetect: pip install 'openjepa[pack]'"),
        ((tmp_path / "t.parquet", tmp_path / "out"), "Parquet is read by pyarrow: pip install 'openjepa[pack]'"),
    ):
        code, _, error = run(capsys, *arguments)
        assert code == 2 and error.strip().endswith(message)
