"""What the packer makes of folders and tables before it opens a video, how it divides them, and where it cuts."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from jepa_data.errors import DataError
from jepa_data.pack.cuts import batches, cut
from jepa_data.pack.pack import open_corpus
from jepa_data.pack.recipe import scaled
from jepa_data.shards.manifest import clean_key
from jepa_data.sources.corpus import Item, key_of, mixed, split_of
from jepa_data.sources.folder import read_folder
from jepa_data.sources.table import read_table


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def items(source: Path) -> dict[str, Item]:
    return {item.name: item for item in open_corpus(source).items(0)}


def test_folders_are_labels(tmp_path: Path) -> None:
    root = tree(tmp_path, "b/1.mp4", "a/2.MKV", "a/deep/3.jpg", "4.avi", "a/notes.txt", ".hidden/5.mp4", "a/._6.mp4")
    corpus, found = read_folder(root), items(root)
    assert corpus.label_values == {"label": ("a", "b")} and corpus.count == 4
    labels = {name: (item.labels["label"], item.metadata.get("label")) for name, item in found.items()}
    assert labels == {"b/1.mp4": (1, "b"), "a/2.MKV": (0, "a"), "a/deep/3.jpg": (0, "a"), "4.avi": (-1, None)}
    assert "1 other files were left out: 1 .txt" in corpus.notes[0]
    plain = read_folder(root, labels=False)
    assert plain.label_names == () and all(not item.labels for item in plain.items(0))


def test_a_folder_without_folders_has_no_labels(tmp_path: Path) -> None:
    assert read_folder(tree(tmp_path, "1.mp4", "2.mp4")).label_names == ()


def test_folders_that_are_all_named_after_splits_are_splits(tmp_path: Path) -> None:
    found = items(tree(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "validation/a/3.mp4"))
    assert {name: (item.split, item.metadata["label"]) for name, item in found.items()} == {
        "train/a/1.mp4": ("train", "a"),
        "train/b/2.mp4": ("train", "b"),
        "validation/a/3.mp4": ("val", "a"),
    }
    assert {item.split for item in items(tree(tmp_path, "other/4.mp4")).values()} == {None}


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", "a/1.mp4")
    (root / "b").symlink_to(tree(tmp_path / "elsewhere", "2.mp4"))
    (root / "a" / "back").symlink_to(root)
    assert set(items(root)) == {"a/1.mp4", "b/2.mp4"}


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no video or image.*mp4"):
        read_folder(tree(tmp_path, "a/notes.txt"))


CSV = 'path,label,start,end,caption,split,camera,labels\na/1.mp4,walk,0,2.5,"one, two",train,3,x\nb 2.mp4,run,,,,,,\n'


def test_a_table_gives_labels_times_captions_splits_and_keeps_other_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    corpus, found = read_table(tmp_path / "t.csv"), items(tmp_path / "t.csv")
    first, second = found["a/1.mp4"], found["b 2.mp4"]
    assert corpus.label_values == {"label": ("run", "walk")}
    assert first.path == tmp_path / "a/1.mp4" and (first.start, first.end, first.split) == (0.0, 2.5, "train")
    assert first.metadata == {"label": "walk", "caption": "one, two", "camera": "3", "labels_": "x"}
    assert (second.start, second.end, second.split) == (None, None, None) and second.metadata == {"label": "run"}
    assert first.labels == {"label": 1} and second.labels == {"label": 0}


def test_json_lines_and_parquet_say_the_same_as_csv(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    rows = [
        {"path": "a.mp4", "label": "x", "start": 0.0, "end": 1.5, "tags": ["p", "q"]},
        {"path": "b.mp4", "label": None, "start": None, "end": None, "tags": None},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    a, b = (items(tmp_path / name) for name in ("t.jsonl", "t.parquet"))
    assert a == b and a["a.mp4"].metadata == {"label": "x", "tags": ["p", "q"]} and a["b.mp4"].labels == {"label": -1}


@pytest.mark.parametrize("ending", ["csv", "txt"])
def test_v_jepas_lists_have_no_heading_and_keep_their_numbers(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"k400.{ending}"
    path.write_text("/data/a clip.mp4 27\nb.mp4 3\n")
    corpus, found = read_table(path), items(path)
    assert {name: item.labels["label"] for name, item in found.items()} == {"/data/a clip.mp4": 27, "b.mp4": 3}
    assert corpus.label_values == {} and found["/data/a clip.mp4"].path == Path("/data/a clip.mp4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.mp4,1\n", "row 1: expected a heading with a column `path`"),
        ("path,start\na.mp4,soon\n", "row 1: start is a time in seconds, found 'soon'"),
        ("path,start,end\na.mp4,3,2\n", r"row 1 ends at 2 s, before it starts \(3 s\)"),
        ("path,split\na.mp4,holdout\n", "row 1 has the split 'holdout', expected train, val or test"),
        ("path,start,split\na.mp4,0,train\na.mp4,5,test\n", "in the split train in row 1 and in test in row 2"),
        ("path,label\na.mp4,x,y\n", "row 1 has more cells than the heading names"),
        ("path,label\n,x\n", "row 1 has no path"),
        ("path,label\n", "has no rows"),
        ("path,label,label\na.mp4,x,y\n", "heading names 'label' twice"),
        ('path,label\na.mp4,"walk\nb.mp4,run\n', "row 1 is no CSV .unexpected end of data"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_a_caption_may_hold_characters_that_look_like_line_ends(tmp_path: Path, separator: str) -> None:
    caption = f"one{separator}two"
    rows = [{"path": "a.mp4", "caption": caption, "label": "run"}, {"path": "b.mp4", "label": "walk"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    (tmp_path / "t.csv").write_text(f"path,caption,label\na.mp4,{caption},run\nb.mp4,,walk\n")
    (tmp_path / "t.txt").write_text(f"{caption}.mp4 3\nb.mp4 4\n")
    for name in ("t.csv", "t.jsonl"):
        found = items(tmp_path / name)
        assert found["a.mp4"].metadata == {"caption": caption, "label": "run"}
        assert [found[path].labels["label"] for path in ("a.mp4", "b.mp4")] == [0, 1]
    assert sorted(item.labels["label"] for item in read_table(tmp_path / "t.txt").items(0)) == [3, 4]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_table_of_a_spreadsheet_keeps_its_cells_whole(tmp_path: Path, ends: str) -> None:
    long = ("word " * 40_000).strip()  # more than the 128 KiB that csv allows by itself
    text = f'path,caption,label{ends}a.mp4,"two{ends}lines, ""quoted""",run{ends}{ends}b.mp4,{long},walk{ends}'
    (tmp_path / "t.csv").write_bytes(text.encode("utf-8-sig"))
    found = items(tmp_path / "t.csv")
    assert found["a.mp4"].metadata == {"caption": 'two\nlines, "quoted"', "label": "run"}
    assert found["b.mp4"].metadata == {"caption": long, "label": "walk"}


def test_short_and_repeated_rows_are_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\na.mp4\nb.mp4,x\nb.mp4,x\n")
    corpus = read_table(tmp_path / "t.csv")
    assert corpus.count == 3 and len({item.key for item in corpus.items(0)}) == 3
    short, repeated = corpus.notes
    assert "1 rows have fewer cells" in short and "1 rows say the same video and times" in repeated


def test_a_key_that_is_in_a_json_row_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"path": "a.mp4"}\n{"path": "b.mp4", "label": "x", "label": "y"}\n')
    with pytest.raises(DataError, match="row 2 names 'label' twice"):
        read_table(tmp_path / "t.jsonl")
    (tmp_path / "t.jsonl").write_text("[" * 200_000)
    with pytest.raises(DataError, match="row 1 is no JSON"):
        read_table(tmp_path / "t.jsonl")


def test_numbers_too_long_for_a_class_are_names(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\na.mp4,12345678901\nb.mp4,²\n")
    assert read_table(tmp_path / "t.csv").label_values == {"label": ("12345678901", "²")}


def test_a_source_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        open_corpus(tmp_path / "nowhere")
    with pytest.raises(DataError, match="expected a folder, or a table that ends in csv"):
        open_corpus(tree(tmp_path, "a.doc") / "a.doc")


def test_keys_are_readable_short_clean_and_never_the_same() -> None:
    names = [
        "a b.mp4",
        "a_b.mp4",
        "a/b.mp4",
        "a_b.webm",
        "../../a_b.mp4",
        "x" * 300 + ".mp4",
        "x" * 301 + ".mp4",
        "ä.mp4",
    ]
    keys = [key_of(name) for name in names] + [key_of("a b.mp4", 0.0, 1.0), key_of("a b.mp4", 0.0, 1.5)]
    assert len(set(keys)) == len(keys)
    # A key with the number of a piece behind it is stored as it is.
    assert all(clean_key(f"{key}-00001") == f"{key}-00001" for key in keys)
    assert keys[0].startswith("a_b-")


def test_splits_are_drawn_per_video_and_do_not_depend_on_the_others() -> None:
    def drawn(seed: int, names: range) -> dict[str, str]:
        found = [Item(f"v{i}", f"v{i}", f"v{i}", Path()) for i in names]
        return {item.name: split_of(item, seed, 0.2, 0.1) for item in found}

    many = drawn(0, range(4000))
    shares = {split: sum(value == split for value in many.values()) / 4000 for split in ("train", "val", "test")}
    assert abs(shares["test"] - 0.1) < 0.02 and abs(shares["val"] - 0.2) < 0.02
    assert drawn(0, range(100, 200)).items() <= many.items()
    assert drawn(1, range(4000)) != many
    assert split_of(Item("v", "v", "v", Path(), split="val"), 0, 0.0, 1.0) == "val"


def test_parts_of_a_video_fall_into_one_split(tmp_path: Path) -> None:
    rows = "".join(f"{i // 5}.mp4,{i % 5},{i % 5 + 1}\n" for i in range(100))
    (tmp_path / "t.csv").write_text("path,start,end\n" + rows)
    found: dict[str, set[str]] = {}
    for item in read_table(tmp_path / "t.csv").items(0):
        found.setdefault(item.name, set()).add(split_of(item, 3, 0.3, 0.3))
    assert len(found) == 20 and all(len(splits) == 1 for splits in found.values())
    assert set.union(*found.values()) == {"train", "val", "test"}


def test_the_order_mixes_labels_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    root = tree(tmp_path, *(f"{label}/{i}.mp4" for label in "ab" for i in range(40)))
    corpus = read_folder(root)
    orders = [[item.name for item in corpus.items(seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2])
    assert 10 < sum(name.startswith("a") for name in orders[0][:40]) < 30
    assert mixed(reversed(list(corpus.items(0))), 0) == list(corpus.items(0))


def test_pieces_cover_a_video_end_at_scenes_and_are_of_equal_length() -> None:
    pieces = cut(2.0, 30.0, [0.0, 9.0, 30.0], 8.0)
    assert [piece.number for piece in pieces] == list(range(4))
    assert [(piece.start, piece.end) for piece in pieces] == [(2.0, 9.0), (9.0, 16.0), (16.0, 23.0), (23.0, 30.0)]
    for end in np.random.default_rng(0).uniform(1, 300, 50):
        pieces = cut(0.0, float(end), [], 10.0)
        assert len(pieces) == np.ceil(end / 10) and max(piece.seconds for piece in pieces) <= 10 + 1e-6
        assert pieces[0].start == 0 and pieces[-1].end == end
        assert all(a.end == b.start for a, b in pairwise(pieces))
    assert len(cut(0.0, 500.0, [], None)) == 1


def test_batches_keep_all_pieces_in_order_and_within_their_length() -> None:
    pieces = cut(0.0, 100.0, [30.0, 31.0], 20.0)
    found = batches(pieces, 40.0)
    assert [piece for batch in found for piece in batch] == pieces and len(found) > 1
    assert all(len(batch) == 1 or sum(piece.seconds for piece in batch) <= 40 for batch in found)
    assert batches([], 40.0) == []


@pytest.mark.parametrize(
    ("stored", "expected"),
    [((720, 1280), (256, 454)), ((1920, 1080), (454, 256)), ((240, 320), (240, 320)), ((241, 321), (240, 320))],
)
def test_images_keep_their_aspect_and_are_never_enlarged(stored: tuple[int, int], expected: tuple[int, int]) -> None:
    assert scaled(*stored, 256) == expected
