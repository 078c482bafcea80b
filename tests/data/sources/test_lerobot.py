"""LeRobot v3 data sets: each episode's own frames, with its own actions and states, out of files that hold several."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from numpy.typing import NDArray

from jepa_data.decode import get_backend
from jepa_data.errors import DataError
from jepa_data.pack.pack import Packing, Report, open_corpus, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.read import ShardFiles, read_npy
from jepa_data.sources.lerobot import _names, read_lerobot

Numbered = Callable[..., NDArray[np.uint8]]
ReadNumbers = Callable[[NDArray[np.uint8]], list[int]]
TOP, WRIST = "observation.images.top", "observation.images.wrist"
LENGTHS, FILES = (12, 7, 9, 16), (0, 0, 1, 1)  # frames of each episode, and the file it is in


def numbers(episode: int) -> NDArray[np.int64]:
    """What is burned into the frames of an episode."""
    return 100 * episode + np.arange(LENGTHS[episode])


def write_dataset(root: Path, numbered: Numbered, fps: int = 10, gop: int = 2, **info: Any) -> Path:
    """A data set of two cameras; action t of frame n is (n, -n), its state (n, n/2)."""
    vector = {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}}
    camera = {"dtype": "video", "shape": [64, 64, 3], "names": ["height", "width", "channels"]}
    described = {
        "codebase_version": "v3.0",
        "fps": fps,
        "splits": {"train": "0:4"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {TOP: camera, WRIST: camera, "action": vector, "observation.state": vector},
    } | info
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(described))
    rows, data = [], {0: list[dict[str, Any]](), 1: list[dict[str, Any]]()}
    for episode, (length, file) in enumerate(zip(LENGTHS, FILES, strict=True)):
        before = sum(n for n, f in zip(LENGTHS[:episode], FILES[:episode], strict=True) if f == file)
        row = {"episode_index": episode, "tasks": [("push", "pull")[episode % 2]], "length": length}
        row |= {"data/chunk_index": 0, "data/file_index": file, "stats/action/mean": [0.0, 0.0]}
        for name in (TOP, WRIST):
            row |= {f"videos/{name}/chunk_index": 0, f"videos/{name}/file_index": file}
            row |= {
                f"videos/{name}/from_timestamp": before / fps,
                f"videos/{name}/to_timestamp": (before + length) / fps,
            }
        rows.append(row)
        for frame, number in enumerate(numbers(episode).tolist()):
            data[file].append(
                {"episode_index": episode, "frame_index": frame, "timestamp": frame / fps}
                | {"action": [float(number), -float(number)], "observation.state": [float(number), number / 2]}
            )
    parquet.write_table(arrow.Table.from_pylist(rows[::-1]), root / "meta/episodes/chunk-000/file-000.parquet")
    for file, table in data.items():
        parquet.write_table(arrow.Table.from_pylist(table), root / f"data/chunk-000/file-{file:03d}.parquet")
        for number, name in enumerate((TOP, WRIST)):
            path = root / f"videos/{name}/chunk-000/file-{file:03d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            parts = [numbered(LENGTHS[e], 100 * e + 1000 * number) for e in range(4) if FILES[e] == file]
            path.write_bytes(encode_mp4(np.concatenate(parts), fps, gop=gop))
    return root


def packed(root: Path, out: Path, camera: str, **recipe: Any) -> Report:
    corpus = open_corpus(root, camera=camera)
    wanted: dict[str, Any] = {"fps": None, "max_seconds": None} | recipe
    return pack(corpus, out, Packing(Recipe(**wanted)), processes=1)


def contents(out: Path) -> dict[str, tuple[Any, dict[str, bytes], NDArray[np.uint8]]]:
    found, files = {}, ShardFiles(out)
    for sample in ShardSet.open(out).samples:
        members = files.read(sample)
        with get_backend("pyav").open(members["mp4"]) as reader:
            found[sample.key] = sample, members, reader.frames(range(reader.index.frames))
    return found


def test_each_episode_has_its_own_frames_actions_and_states(
    tmp_path: Path, numbered: Numbered, read_numbers: ReadNumbers
) -> None:
    root = write_dataset(tmp_path / "set", numbered)
    packed(root, tmp_path / "out", WRIST)
    manifest, found = ShardSet.open(tmp_path / "out").manifest, contents(tmp_path / "out")
    assert sorted(found) == [f"episode-{e:06d}" for e in range(4)]
    assert (manifest.fps, manifest.action_size, manifest.state_names) == (10, 2, ("x", "y"))
    assert manifest.image_size == 64 and manifest.label_values == {"task": ("pull", "push")}
    for episode in range(4):
        sample, members, images = found[f"episode-{episode:06d}"]
        shown = numbers(episode)
        assert read_numbers(images) == (shown + 1000).tolist()
        np.testing.assert_array_equal(
            read_npy(members["actions.npy"], len(shown) - 1), np.stack([shown, -shown], 1)[:-1]
        )
        np.testing.assert_array_equal(read_npy(members["states.npy"], len(shown)), np.stack([shown, shown / 2], 1))
        meta = json.loads(members["metadata.json"])
        assert meta["caption"] == meta["task"] == ("push", "pull")[episode % 2] and meta["episode"] == episode
        assert sample.labels == {"task": 1 - episode % 2}
        assert meta["source"].startswith(f"videos/{WRIST}/chunk-000/file-00{FILES[episode]}.mp4")


def test_at_half_the_rate_the_actions_between_two_frames_lie_side_by_side(
    tmp_path: Path, numbered: Numbered, read_numbers: ReadNumbers
) -> None:
    packed(write_dataset(tmp_path / "set", numbered), tmp_path / "out", TOP, fps=5.0)
    assert ShardSet.open(tmp_path / "out").manifest.action_size == 4
    _, members, images = contents(tmp_path / "out")["episode-000001"]
    assert read_numbers(images) == [100, 102, 104, 106]
    expected = [[100, -100, 101, -101], [102, -102, 103, -103], [104, -104, 105, -105]]
    assert read_npy(members["actions.npy"], 3).tolist() == expected


def test_episodes_are_copied_where_they_begin_at_keyframes_and_refused_elsewhere(
    tmp_path: Path, numbered: Numbered, read_numbers: ReadNumbers
) -> None:
    packed(write_dataset(tmp_path / "intra", numbered, gop=1), tmp_path / "one", TOP, video="copy")
    for key, (_, members, images) in contents(tmp_path / "one").items():
        shown = numbers(int(key[-6:]))
        assert read_numbers(images) == shown.tolist()
        assert read_npy(members["actions.npy"], len(shown) - 1)[:, 0].tolist() == shown[:-1].tolist()
    report = packed(write_dataset(tmp_path / "groups", numbered, gop=4), tmp_path / "two", TOP, video="copy")
    # Episode 0 has 12 frames, a whole number of groups; 1 ends with its file; 2 and 3 meet in the middle of a group.
    assert sorted(contents(tmp_path / "two")) == ["episode-000000", "episode-000001"]
    assert len(report.rejected) == 2 and all("actions belong to it" in one for one in report.rejected)


def test_splits_of_the_data_set_are_kept(tmp_path: Path, numbered: Numbered) -> None:
    root = write_dataset(tmp_path / "set", numbered, splits={"train": "0:2", "val": "2:3", "test": "3:4"})
    found = [item.split for item in open_corpus(root, camera=TOP).items(0)]
    assert found == ["train", "train", "val", "test"]
    plain = write_dataset(tmp_path / "plain", numbered)
    assert {item.split for item in open_corpus(plain, camera=TOP).items(0)} == {None}


def test_a_video_that_is_out_of_step_with_its_table_is_rejected(tmp_path: Path, numbered: Numbered) -> None:
    root = write_dataset(tmp_path / "set", numbered)
    video = root / f"videos/{TOP}/chunk-000/file-001.mp4"
    video.write_bytes(encode_mp4(numbered(20), 10))  # five frames are missing at the end
    report = packed(root, tmp_path / "out", TOP)
    assert len(report.rejected) == 1
    assert "out of step: its video has 11 frames; 15 actions were recorded, expected 10" in report.rejected[0]


def test_what_is_no_lerobot_v3_is_refused_with_the_way_out(tmp_path: Path, numbered: Numbered) -> None:
    root = write_dataset(tmp_path / "set", numbered)
    with pytest.raises(DataError, match=f"several cameras. Choose one with --camera: {TOP}, {WRIST}"):
        open_corpus(root)
    with pytest.raises(DataError, match="no camera 'left'"):
        open_corpus(root, camera="left")
    with pytest.raises(DataError, match=r"is LeRobot v2\.1; v3 is read\. Convert it"):
        read_lerobot(write_dataset(tmp_path / "old", numbered, codebase_version="v2.1"))
    (root / "meta/info.json").write_text("{}")
    with pytest.raises(DataError, match=r"is not the info.json of a LeRobot data set \(KeyError"):
        read_lerobot(root)
    away = write_dataset(tmp_path / "away", numbered, video_path="../{video_key}/{chunk_index}/{file_index}.mp4")
    with pytest.raises(DataError, match="leads out of the data set"):
        list(read_lerobot(away, camera=TOP).items(0))
    short = write_dataset(tmp_path / "short", numbered)
    table = parquet.read_table(short / "data/chunk-000/file-001.parquet")
    parquet.write_table(table.slice(0, 20), short / "data/chunk-000/file-001.parquet")
    with pytest.raises(DataError, match="has 11 frames of episode 3, meta/episodes says 16"):
        list(read_lerobot(short, camera=TOP).items(0))


@pytest.mark.parametrize(
    "names", [["x", "y", "grip"], {"motors": ["x", "y", "grip"]}, {"grip": 2, "x": 0, "y": 1}], ids=str
)
def test_states_get_their_names_however_a_data_set_writes_them(names: Any) -> None:
    assert _names({"shape": [3], "names": names}) == ("x", "y", "grip")


def test_an_empty_cell_is_not_packed_as_a_number(tmp_path: Path, numbered: Numbered) -> None:
    root = write_dataset(tmp_path / "set", numbered)
    path = root / "data/chunk-000/file-001.parquet"
    table = parquet.read_table(path).to_pylist()
    table[2]["action"] = [1.0, None]
    parquet.write_table(arrow.Table.from_pylist(table), path)
    report = packed(root, tmp_path / "out", TOP)
    assert len(report.rejected) == 1 and "episode-000002" in report.rejected[0]
    assert "its actions hold nan (number 2 of 2, first in the action at frame 2)" in report.rejected[0]
    assert {sample.key for sample in ShardSet.open(tmp_path / "out").samples} == {
        f"episode-00000{e}" for e in (0, 1, 3)
    }
