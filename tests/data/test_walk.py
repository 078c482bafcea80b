"""Folders as people have them: links, odd names, folders that may not be read. All commands see and count the same."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer

from jepa.cli.app import main
from jepa_data.decode import get_backend
from jepa_data.errors import DataError, DecodeError
from jepa_data.inspect.summary import lines, summary
from jepa_data.inspect.survey import survey
from jepa_data.pack.pack import Packing, open_corpus, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.printable import printable
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.sources.walk import walk

Numbered = Callable[..., np.ndarray]
LATIN = os.fsdecode(b"caf\xe9.mp4")  # a Latin-1 name: no UTF-8


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in walk(root, ("mp4",)).files]


def touched(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_linked_folders_are_followed_once_and_counted(tmp_path: Path) -> None:
    root = touched(tmp_path / "root", "b/1.mp4", "b/deep/2.MP4")
    (root / "elsewhere").symlink_to(touched(tmp_path / "other", "3.mp4"))
    (root / "a").symlink_to(root / "b")  # comes first by name; the folder keeps its own
    (root / "b" / "up").symlink_to(root)
    found = walk(root, ("mp4",))
    assert names(root) == ["b/1.mp4", "b/deep/2.MP4", "elsewhere/3.mp4"] and found.repeated == 2
    assert found.notes == ("2 links to folders that were read already were left out",)


def test_whatever_is_no_readable_file_is_named_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = touched(tmp_path, "ok.mp4", "folder.mp4/inside.mp4", "locked/x.mp4", ".hidden/y.mp4", "notes.txt")
    os.mkfifo(root / "pipe.mp4")
    (root / "gone.mp4").symlink_to("nowhere")
    (root / "circle.mp4").symlink_to("circle.mp4")
    listed = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = walk(root, ("mp4",))
    assert names(root) == ["folder.mp4/inside.mp4", "ok.mp4"]
    assert (dict(found.others), found.hidden) == ({".txt": 1}, 1)
    assert sorted(found.unreadable) == [
        "circle.mp4 (broken link)",
        "gone.mp4 (broken link)",
        "locked (Permission denied)",
        "pipe.mp4 (not a regular file)",
    ]
    with pytest.raises(DataError, match=r"locked: cannot be read \(Permission denied\)"):
        walk(root / "locked", ("mp4",))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain é/x.mp4", "plain é/x.mp4"),
        (LATIN, r"caf\xe9.mp4"),
        ("a\nb\x1b[2J\u2028.mp4", r"a\nb\x1b[2J\u2028.mp4"),
        ("\ud800", r"\ud800"),
    ],
)
def test_any_name_can_be_printed(name: str, expected: str) -> None:
    assert printable(name) == expected
    printable(name).encode()


@pytest.mark.parametrize("name", ["", "x\0.mp4", "x\ud800.mp4"])
def test_opening_a_folder_or_no_name_at_all_is_said_of_the_video(tmp_path: Path, name: str) -> None:
    with pytest.raises(DecodeError, match=r"it is a folder|no file can have this name"):
        get_backend("pyav").probe(tmp_path / name)


def test_a_name_that_is_not_utf8_is_packed_and_looked_at_like_any_other(tmp_path: Path, numbered: Numbered) -> None:
    video = encode_mp4(numbered(8), 10)
    root = touched(tmp_path / "videos", "other.mp4/1.mp4").resolve()
    odd = root / os.fsdecode(b"caf\xe9s")
    odd.mkdir()
    (odd / LATIN).write_bytes(video)
    (root / "other.mp4" / "1.mp4").write_bytes(video)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.mp4").write_bytes(video)
    assert {video.frames for video in survey(root, workers=1).videos} == {8} and survey(root, workers=1).count == 3
    pack(open_corpus(root), tmp_path / "out", Packing(Recipe(), test_share=0.0), processes=1)
    shards = ShardSet.open(tmp_path / "out")
    assert {sample.source["url"] for sample in shards.samples} == {
        r"caf\xe9s/caf\xe9.mp4", "other.mp4/1.mp4", "linked/2.mp4"
    }  # fmt: skip
    assert shards.manifest.label_values["label"] == (r"caf\xe9s", "linked", "other.mp4")
    "\n".join(lines(summary(shards))).encode()


def test_a_row_with_an_impossible_name_is_rejected_and_the_rest_is_packed(tmp_path: Path, numbered: Numbered) -> None:
    (tmp_path / "a.mp4").write_bytes(encode_mp4(numbered(8), 10))
    rows = [{"path": name} for name in ("a.mp4", "x\0.mp4", "x\ud800.mp4", "x" * 300 + ".mp4", "no.mp4")]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    packing = Packing(Recipe(), test_share=0.0)
    report = pack(open_corpus(tmp_path / "t.jsonl"), tmp_path / "out", packing, processes=1)
    assert report.manifest.splits["train"].episodes == 1 and len(report.rejected) == 4
    "".join(report.rejected).encode()


def test_a_name_that_the_terminal_cannot_show_does_not_end_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, app = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), typer.Typer()
    monkeypatch.setattr(sys, "stdout", terminal)
    app.command()(lambda: typer.echo(f"{LATIN} …"))
    with pytest.raises(SystemExit) as end:
        main([], app)
    terminal.seek(0)
    assert end.value.code == 0 and terminal.read() == "caf\\udce9.mp4 …\n"
