"""`jepa data inspect`: counts are right, lines are few, nothing heavy is imported, and the sheet shows the frames."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jepa_data.inspect import summary as inspect
from jepa_data.inspect.contact_sheet import SIDE, STEP, contact_sheet
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.write import ShardWriter

Writer = Callable[..., Path]
Numbered = Callable[..., np.ndarray]
Reading = Callable[[np.ndarray], list[int]]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, numbered: Numbered) -> Path:
    """As `jepa data pack` writes them: classes with names, captions, sources; two splits, an image among videos."""
    out, image = tmp_path_factory.mktemp("packed") / "s", tmp_path_factory.mktemp("image") / "a.png"
    Image.fromarray(numbered(1, 7)[0]).save(image)
    settings = {"fps": None, "image_size": 64, "world": None, "action_size": 0, "state_names": [], "seed": 0}
    names, made = {"label": ("cat", "dog")}, {"command": "pack", "source": {"kind": "folder"}, "gop": 8}
    with ShardWriter(out, label_names=["label"], label_values=names, made=made, **settings) as writer:
        for i in range(12):
            metadata = {"labels": {"label": i % 3 - 1}} | ({"caption": f"pet {i}"} if i < 6 else {})
            video, source = encode_mp4(numbered(10 + i, 100 * i), 10), {"url": f"pets/{i // 2}.mov"}
            writer.write("train" if i < 10 else "test", f"v{i}", video, 10 + i, None, None, metadata, source=source)
        writer.write("test", "p", image.read_bytes(), 1, None, None, {"labels": {"label": 0}}, ending="png")
    return out


def test_counts_lengths_classes_captions_and_sources_are_reported(packed: Path) -> None:
    summary = inspect.summary(ShardSet.open(packed))
    train, test = summary["splits"]["train"], summary["splits"]["test"]
    assert (train["samples"], train["frames"], train["frames_per_sample"]) == (10, 145, [10, 19])
    assert (test["samples"], test["images"], test["codecs"]) == (3, 1, {"h264": 2, "png": 1})
    assert train["labels"] == {"label": {-1: 4, 0: 3, 1: 3}}
    assert train["metadata"]["columns"]["caption"] == {"count": 6, "example": "pet 0"}
    assert train["sources"] == {"count": 5, "first": ["pets/0.mov", "pets/1.mov", "pets/2.mov"]}
    assert sum(train["lengths"]["counts"]) == 10
    assert json.loads(json.dumps(summary))["made"]["command"] == "pack"
    told = "\n".join(inspect.lines(summary))
    for part in (
        "10 samples in 1 shard(s), 10 to 19 frames each", "label    none: 4  cat: 3  dog: 3", "captions in 6 of 10",
        "made by  pack, source folder, gop 8", "sources  5 files: pets/0.mov, pets/1.mov, pets/2.mov, …",
        "images   1", "rates    10 10", "sizes    64x64 10",
    ):  # fmt: skip
        assert part in told, told


def test_many_samples_are_looked_at_in_part_and_it_is_said(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "LINES", 4)
    summary = inspect.summary(ShardSet.open(packed))
    train = summary["splits"]["train"]
    assert (train["samples"], train["frames"], train["looked_at"]) == (10, 145, 4)  # the table knows them all
    assert "of 4 samples, evenly spread" in "\n".join(inspect.lines(summary))


def test_lost_samples_are_reported(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 7, 8])
    tar = folder / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[: ShardSet.open(folder).samples[2].members["mp4"][0]])
    summary = inspect.summary(ShardSet.open(folder))
    assert summary["splits"]["train"]["lost"] == 1 and "problems 1 lost" in "\n".join(inspect.lines(summary))


def test_a_mix_is_a_line_each_with_its_shares(tmp_path: Path, write_shards: Writer) -> None:
    folders = [write_shards(tmp_path / "a", [10] * 3), write_shards(tmp_path / "b", [30])]
    head, first, second = inspect.mix([inspect.summary(ShardSet.open(folder)) for folder in folders])
    assert [len(row) for row in (head, first, second)] == [len(head)] * 3
    assert (first[4], first[5], second[4], second[5]) == ("75.0%", "50.0%", "25.0%", "50.0%")


@pytest.mark.parametrize(
    ("lengths", "edges", "counts"),
    [
        ([4.0, 4.0, 4.01], [4.0, 4.01], [3]),
        ([0.5, 1.5, 2.5, 6.9], [0, 1, 2, 3, 4, 5, 6, 7], [1, 1, 1, 0, 0, 0, 1]),
        ([10, 60, 80], [10, 20, 30, 40, 50, 60, 70, 80], [1, 0, 0, 0, 0, 1, 1]),
        ([], [], []),
    ],
)
def test_lengths_fall_between_round_edges(lengths: list[float], edges: list[float], counts: list[int]) -> None:
    assert inspect.histogram(np.array(lengths, np.float64)) == (edges, counts)


def test_a_length_counts_the_time_the_last_frame_stays() -> None:
    frames, last = np.array([10, 1], np.uint32), np.array([0.9, 0.0])
    assert inspect.seconds_of(frames, last).tolist() == [1.0, 0.0]


def test_the_sheet_shows_first_middle_and_last_frame(packed: Path, tmp_path: Path, read_numbers: Reading) -> None:
    out = tmp_path / "sheet.png"
    assert contact_sheet(ShardSet.open(packed), out, samples=4, columns=2) == 4
    with Image.open(out) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    rows = [inspect.evenly(13, 4)[i : i + 2] for i in (0, 2)]
    for row, samples in enumerate(rows):
        for column, sample in enumerate(samples):
            top, left = 10 + row * (SIDE + 28), 10 + column * (3 * STEP + 10)
            margin = (SIDE - 64) // 2
            boxes = [pixels[top + margin : top + margin + 64, left + i * STEP + margin :][:, :64] for i in range(3)]
            last = 9 + sample
            expected = [100 * sample + n for n in (0, last // 2, last)]
            if sample == 12:  # the image: one frame, and white beside it
                assert read_numbers(boxes[0]) == [7] and boxes[1].min() == 255
            else:
                assert [read_numbers(box)[0] for box in boxes] == expected


def test_the_sheet_says_what_cannot_be_read(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 7])
    sample = ShardSet.open(folder).samples[1]
    data = bytearray((folder / sample.shard).read_bytes())
    data[sample.members["mp4"][0] + 60] ^= 255
    (folder / sample.shard).write_bytes(data)
    assert contact_sheet(ShardSet.open(folder), tmp_path / "sheet.png", columns=1) == 2
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.convert("RGB").getpixel((20, SIDE + 48)) == (0xE9, 0xEA, 0xED)


def test_inspecting_imports_neither_torch_nor_a_decoder(packed: Path) -> None:
    code = f"""
import sys
sys.path[:0] = {[entry for entry in sys.path if entry]!r}
from jepa_data.inspect import summary as inspect
from jepa_data.shards.index import ShardSet
inspect.lines(inspect.summary(ShardSet.open({str(packed)!r})))
print([name for name in ("torch", "av", "webdataset", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
