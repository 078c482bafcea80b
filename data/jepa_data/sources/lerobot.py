"""A LeRobot v3 data set on disk: many episodes in each mp4, actions and states in Parquet beside them.

    meta/info.json                                  rate, features, where files lie
    meta/episodes/chunk-000/file-000.parquet        a row per episode: its length and its place in data and videos
    meta/tasks.parquet                              the text of each task
    data/chunk-000/file-000.parquet                 a row per frame: action, observation.state, episode_index, ...
    videos/CAMERA/chunk-000/file-000.mp4            episodes one after the other

Layout: https://huggingface.co/docs/lerobot/lerobot-dataset-v3. There `action[t]` is what was done on seeing frame t, so
it takes frame t to t+1, as here; the last one leads to no frame and is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from jepa.config.reading import parse_json
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.finite import as_float32
from jepa_data.sources.corpus import SPLIT_NAMES, Corpus, Item, class_numbers
from jepa_data.sources.parquet import read_parquet

ACTION = "action"
STATE = "observation.state"
INFO = "meta/info.json"


@dataclass(frozen=True)
class _Layout:
    """What info.json says, as far as it is used."""

    root: Path
    fps: float
    camera: str
    image_size: int
    data_path: str
    video_path: str
    actions: int
    state_names: tuple[str, ...]
    splits: Mapping[str, range]


def read_lerobot(root: Path, *, camera: str | None = None, labels: bool = True) -> Corpus:
    """The episodes of a data set.

    Args:
        camera: the feature whose video is packed, for example "observation.images.top". None: the only one there is.
        labels: whether the task becomes the label `task`. Its text is the caption in any case.

    Raises:
        DataError: another version, no such camera, or files that are missing or do not fit each other.
    """
    layout = _layout(root, camera)
    episodes = _episodes(root)
    tasks = [_task(row) for row in episodes]
    numbers = class_numbers(task for task in tasks if labels and task is not None)
    return Corpus(
        kind="lerobot",
        count=len(episodes),
        items=lambda seed: _items(layout, episodes, tasks, numbers),
        label_names=("task",) if numbers else (),
        label_values={"task": tuple(numbers)} if numbers else {},
        action_size=layout.actions,
        state_names=layout.state_names,
        fps=layout.fps,
        image_size=layout.image_size,
        about={"name": root.resolve().name, "labels": labels, "camera": layout.camera},
    )


def is_lerobot(root: Path) -> bool:
    return (root / INFO).is_file()


def _items(
    layout: _Layout, episodes: Sequence[Mapping[str, Any]], tasks: Sequence[str | None], numbers: Mapping[str, int]
) -> Iterator[Item]:
    path = None
    recorded: dict[int, _Recorded] = {}
    prefix = f"videos/{layout.camera}"
    for row, task in zip(episodes, tasks, strict=True):
        try:
            episode = int(row["episode_index"])
            length = int(row["length"])
            data = _filled(layout.data_path, row, "data")
            video = _filled(layout.video_path, row, prefix, video_key=layout.camera)
            first = float(row[f"{prefix}/from_timestamp"])
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(f"{layout.root}: meta/episodes: a row has no {error}, which LeRobot v3 has") from error
        if path != data:  # episodes of one file follow each other, so each file is read once
            path = data
            recorded = _recorded(layout.root / data, layout)
        in_file = recorded.get(episode, _Recorded())
        if in_file.frames != length or not length:
            raise DataError(
                f"{layout.root / data}: has {in_file.frames} frames of episode {episode}, meta/episodes says {length}"
            )
        name = f"episode-{episode:06d}"
        yield Item(
            name=f"{video}#{name}",
            key=name,
            group=name,
            path=layout.root / video,
            # Halfway between frames, so that rounding neither loses the first nor takes one of the next episode.
            start=max(0.0, first - 0.5 / layout.fps),
            end=first + (length - 0.5) / layout.fps,
            split=next((split for split, within in layout.splits.items() if episode in within), None),
            labels={"task": numbers.get(task or "", -1)} if numbers else {},
            metadata={"episode": episode} | ({} if task is None else {"task": task, "caption": task}),
            actions=in_file.actions,
            states=in_file.states,
        )


@dataclass(frozen=True)
class _Recorded:
    """What data/ holds of an episode."""

    frames: int = 0
    actions: Float32[np.ndarray, "P A"] | None = None
    states: Float32[np.ndarray, "F X"] | None = None


def _recorded(path: Path, layout: _Layout) -> dict[int, _Recorded]:
    vectors = [name for name, size in ((ACTION, layout.actions), (STATE, len(layout.state_names))) if size]
    names = {"episode_index", "frame_index", *vectors}
    table = read_parquet(path, lambda column: column in names)
    if missing := names.difference(table.column_names):
        raise DataError(f"{path}: has no column {', '.join(sorted(missing))}")
    episode = table["episode_index"].to_numpy()
    frame = table["frame_index"].to_numpy()
    by_episode = {}
    for number in np.unique(episode):
        rows = np.flatnonzero(episode == number)
        rows = rows[np.argsort(frame[rows], kind="stable")]
        if not np.array_equal(frame[rows], np.arange(len(rows))):
            raise DataError(f"{path}: episode {number}: its frames are not numbered 0 to {len(rows) - 1}")
        matrices = {name: _matrix(table[name].take(rows).to_pylist(), path, name) for name in vectors}
        if ACTION in matrices:
            matrices[ACTION] = matrices[ACTION][:-1]
        by_episode[int(number)] = _Recorded(len(rows), matrices.get(ACTION), matrices.get(STATE))
    return by_episode


def _matrix(rows: list[Any], path: Path, name: str) -> Float32[np.ndarray, "F X"]:
    try:
        array = np.array(rows)
        if array.dtype.kind not in "fiub":  # an empty cell makes the column one of objects: it is NaN
            array = np.array(rows, np.float64)
        array = as_float32(array)
    except DecodeError as error:
        raise DataError(f"{path}: column {name}: {error.detail}") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: column {name}: its rows are not numbers of one width") from error
    return array.reshape(len(array), -1)


def _layout(root: Path, camera: str | None) -> _Layout:
    try:
        info = parse_json((root / INFO).read_text(encoding="utf-8-sig"))
        version = str(info["codebase_version"])
        features = dict(info["features"])
        if not version.startswith("v3."):
            raise DataError(
                f"{root}: is LeRobot {version}; v3 is read. Convert it with "
                "lerobot.scripts.convert_dataset_v21_to_v30 (LeRobot's own)"
            )
        cameras = [name for name, feature in features.items() if feature["dtype"] == "video"]
        images = [name for name, feature in features.items() if feature["dtype"] == "image"]
        chosen = _camera(root, cameras, images, camera)
        absent = {"shape": [0]}
        return _Layout(
            root=root,
            fps=float(info["fps"]),
            camera=chosen,
            image_size=min(side for side in features[chosen]["shape"] if side > 4),  # the other one is channels
            data_path=str(info["data_path"]),
            video_path=str(info["video_path"]),
            actions=int(np.prod(features.get(ACTION, absent)["shape"])),
            state_names=_names(features.get(STATE, absent)),
            splits=_splits(root, info.get("splits") or {}),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{root / INFO}: is not the info.json of a LeRobot data set ({error!r})") from error


def _camera(root: Path, cameras: list[str], images: list[str], wanted: str | None) -> str:
    if not cameras:
        hint = f". Its images are stored as images ({', '.join(images)}), which is not read" if images else ""
        raise DataError(f"{root}: has no video{hint}")
    if wanted is None and len(cameras) == 1:
        return cameras[0]
    if wanted in cameras:
        return str(wanted)
    problem = "several cameras" if wanted is None else f"no camera {wanted!r}"
    raise DataError(f"{root}: has {problem}. Choose one with --camera: {', '.join(cameras)}")


def _names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the columns of a vector; numbered where there are none, or not one each."""
    size = int(np.prod(feature["shape"]))
    names = feature.get("names")
    if isinstance(names, Mapping) and all(isinstance(column, int) for column in names.values()):
        names = [name for name, _ in sorted(names.items(), key=lambda item: item[1])]  # {"y": 1, "x": 0}: their places
    elif isinstance(names, Mapping):  # {"motors": ["x", "y"]}
        names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
    names = [str(name) for name in names or []]
    if len(set(names)) != size:
        names = [f"state.{i}" for i in range(size)]
    return tuple(names)


def _splits(root: Path, ranges: Mapping[str, Any]) -> dict[str, range]:
    """Episodes of each split, {"train": "0:80", "test": "80:100"}; nothing if all are in train."""
    if not set(ranges) - {"train"}:
        return {}
    by_split = {}
    for name, text in ranges.items():
        first, _, end = str(text).partition(":")
        if name.lower() not in SPLIT_NAMES or not (first.isdigit() and end.isdigit()):
            raise DataError(f"{root / INFO}: splits: expected train, val or test as 0:80, found {name}: {text!r}")
        by_split[SPLIT_NAMES[name.lower()]] = range(int(first), int(end))
    return by_split


def _task(row: Mapping[str, Any]) -> str | None:
    tasks = row.get("tasks")
    if isinstance(tasks, str):
        return tasks
    return "; ".join(str(task) for task in tasks) if tasks else None


def _filled(pattern: str, row: Mapping[str, Any], prefix: str, **names: str) -> str:
    """A path from a pattern such as data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet."""
    numbers = {name: int(row[f"{prefix}/{name}"]) for name in ("chunk_index", "file_index")}
    path = pattern.format(**numbers, **names)
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise DataError(f"{INFO}: {path!r} leads out of the data set")
    return path


def _episodes(root: Path) -> list[dict[str, Any]]:
    """Rows of meta/episodes in order, without the many columns of statistics."""
    rows = []
    for path in sorted((root / "meta/episodes").glob("*/*.parquet")):
        rows += read_parquet(path, lambda column: not column.startswith("stats/")).to_pylist()
    if not rows:
        raise DataError(f"{root}: has no episodes in meta/episodes/")
    return sorted(rows, key=lambda row: int(row["episode_index"]))
