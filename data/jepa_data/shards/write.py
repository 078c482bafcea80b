"""Writes samples into shards: tars of about equal size, an index for each, and the manifest last.

A folder is readable only with a manifest, which is written atomically at the end, so an incomplete recording is never
read. The same samples give the same bytes.
"""

import functools
import io
import json
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import numpy as np
from jaxtyping import Float, Float32

from jepa.config.writing import replacing
from jepa_data.actions import ActionStats, ActionSums, stats_of
from jepa_data.decode.base import VideoIndex
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.finite import as_float32, check_actions, check_events, check_states
from jepa_data.shards.manifest import (
    ACTIONS,
    EVENTS,
    IMAGES,
    MEDIA,
    METADATA,
    SPLITS,
    STATES,
    UNFINISHED,
    Manifest,
    SplitRecord,
    clean_key,
    index_name,
    parse_line,
)
from jepa_data.shards.media import probe_media
from jepa_data.shards.resume_log import Finished, prepare
from jepa_data.shards.table import ROW, TABLE, rows_of
from jepa_data.shards.tar import OpenShard
from jepa_data.spatial.kinds import SpatialInfo
from jepa_data.spatial.members import encode
from jepa_data.writable import writing

Value = TypeVar("Value", bound=Hashable)


class ShardWriter:
    """Samples in, a folder of shards out. Use it as a context manager: leaving it writes the manifest.

    Args:
        out: folder, created if missing. It must be empty, except with `overwrite`, which first removes the shards in it
            (and no other files), or `resume`.
        fps, image_size: of the corpus (short side in pixels); None: those of the samples, if all are equal.
        world: the simulated world of the recording; None for other video.
        action_size: A; 0 for video without actions.
        state_names, label_names: columns of `states` [T, X] and keys of `metadata["labels"]`.
        spatial: masks, depth, keypoints or poses that every sample has.
        events: names of the events that every sample has numbers of; () for none.
        seed: of the corpus; stored.
        label_values: names of the classes of labels; may be filled until the context exits.
        made: how the shards are made, JSON-serializable; `resume` requires the same value.
        shard_bytes: a shard of this size is closed.
        resume: keep the finished shards of an interrupted run; `done` contains the keys of their samples. Unfinished
            shards are deleted: writing the remaining samples gives the same bytes as an uninterrupted run.
    """

    def __init__(
        self,
        out: Path,
        *,
        fps: int | float | None,
        image_size: int | None,
        world: str | None,
        action_size: int,
        state_names: Sequence[str],
        label_names: Sequence[str],
        seed: int,
        label_values: Mapping[str, Sequence[str]] | None = None,
        spatial: Sequence[SpatialInfo] = (),
        events: Sequence[str] = (),
        made: Mapping[str, Any] | None = None,
        shard_bytes: int = 64 * 2**20,
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        self.out = Path(out)
        self.label_values = {} if label_values is None else label_values
        self._about = {
            "world": world,
            "fps": None if fps is None else float(fps),
            "image_size": image_size,
            "action_size": action_size,
            "state_names": tuple(state_names),
            "label_names": tuple(label_names),
            "seed": seed,
            "made": dict(made or {}),
        }
        self._spatial = {info.kind: info for info in spatial}
        self._events = tuple(events)
        if events and not action_size:
            raise DataError(f"{self.out}: events ({', '.join(events)}) stand beside actions, and there are none")
        if action_size and fps is None:
            raise DataError(f"{self.out}: video with actions needs one rate, in frames a second; fps is None")
        self._shard_bytes = shard_bytes
        self._open: dict[str, OpenShard] = {}
        self._done: dict[str, list[Finished]] = {}
        settings = json.loads(json.dumps(self._about))
        if self._spatial:
            settings["spatial"] = [info.model_dump(mode="json") for info in spatial]
        if self._events:
            settings["events"] = list(self._events)
        finished_before = prepare(self.out, settings, overwrite=overwrite, resume=resume)
        for finished in finished_before:
            self._done.setdefault(finished.split, []).append(finished)
        self.done = frozenset(key for finished in finished_before for key in finished.keys(self.out))
        self._keys = set(self.done)

    def write(
        self,
        split: str,
        key: str,
        media: bytes,
        frames: int,
        actions: Float32[np.ndarray, "P A"] | None,
        states: Float[np.ndarray, "T X"] | None,
        metadata: Mapping[str, Any],
        *,
        ending: str = "mp4",
        source: Mapping[str, Any] | None = None,
        index: VideoIndex | None = None,
        spatial: Mapping[str, np.ndarray] | None = None,
        events: np.ndarray | None = None,
    ) -> None:
        """Append one sample.

        Args:
            media: the bytes of a video or image file with the suffix `ending`.
            metadata: JSON-serializable; `metadata["labels"]` has an int per label name (-1: none).
            source: the original video: {"url", "start", "end"} in seconds.
            index: of the video, if already computed.
            spatial: the array [T, ...] of each kind that the writer was made for; see `spatial/kinds.py`.
            events: [T-1, W] numbers of events, 0 for none: W of them happen one after the other under one action.

        Raises:
            DataError: the parts do not match each other or the corpus, or the key exists.
            DecodeError: the video cannot be read.
        """
        key = clean_key(key)
        if split not in SPLITS:
            raise DataError(f"split {split!r} of sample {key!r}: expected one of {', '.join(SPLITS)}")
        if ending not in MEDIA:
            raise DataError(f"sample {key!r}: .{ending} is no video or image that is read: {', '.join(MEDIA)}")
        if key in self._keys:
            raise DataError(f"there are two samples with the key {key!r}")
        index = index or probe_media(media, ending)
        labels = _whole_numbers(key, metadata.get("labels", {}))
        self._check(key, frames, index, actions, states, labels)
        actions, states, missing = _checked_numbers(key, actions, states, self._about["state_names"])
        about = dict(metadata)
        if self._events:  # `jepa data index` reads their names from here
            about["events"] = list(self._events)
        members = {ending: media, METADATA: json.dumps(about, sort_keys=True).encode()}
        members |= {name: _npy(x) for name, x in ((ACTIONS, actions), (STATES, states)) if x is not None}
        members |= self._event_member(key, frames, events)
        arrays = self._spatial_members(key, frames, spatial or {})
        with writing(self.out):
            if split not in self._open:
                number = len(self._done.setdefault(split, []))
                self._open[split] = OpenShard(self.out / f"{split}-{number:06d}.tar")
            shard = self._open[split]
            shard.write(key, members, labels, index, source, arrays)
            self._keys.add(key)
            shard.missing_states.update(missing)
            if actions is not None and len(actions):
                shard.actions.append(ActionSums.of(actions))
            if shard.size >= self._shard_bytes:
                self._finish(split)

    def close(self) -> Manifest:
        """Finish the open shards and write the table and the manifest. Raises DataError."""
        with writing(self.out):
            for split in list(self._open):
                self._finish(split)
            parts = {split: self._done[split] for split in SPLITS if self._done.get(split)}
            if not parts:
                raise DataError(f"{self.out}: no sample was written, so there is nothing to describe")
            totals = write_table(self.out, self._finished())
            about: dict[str, Any] = self._about | {k: value for k, value in totals.items() if self._about[k] is None}
            manifest = Manifest(
                **about,
                actions=self._action_stats(),
                missing_states=dict(sum((Counter(one.missing_states) for one in self._finished()), Counter())),
                label_values={name: tuple(values) for name, values in self.label_values.items()},
                events=self._events,
                spatial=tuple(self._spatial.values()),
                splits={split: summed(finished) for split, finished in parts.items()},
            )
            manifest.save(self.out)
            (self.out / UNFINISHED).unlink()
            return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        for shard in self._open.values():  # no manifest: the folder stays marked as unfinished
            with suppress(OSError):  # of a full disk, say, which is what ended the writing
                shard.close()

    def _finish(self, split: str) -> None:
        shard = self._open.pop(split)
        finished = Finished(
            split=cast(Any, split),
            record=shard.close(),
            frames=shard.frames,
            seconds=shard.seconds,
            actions=_added(shard.actions),
            missing_states=dict(shard.missing_states),
        )
        self._done[split].append(finished)
        with (self.out / UNFINISHED).open("a") as file:
            file.write(finished.model_dump_json() + "\n")

    def _finished(self) -> list[Finished]:
        """All closed shards, split by split."""
        return [one for split in SPLITS for one in self._done.get(split, [])]

    def _action_stats(self) -> ActionStats | None:
        """Statistics of all shards; None without actions, or if an earlier version wrote some of them."""
        every = _added([one.actions for one in self._finished()])
        if every is None:
            return None
        trained = _added([one.actions for one in self._finished() if one.split == "train"])
        return stats_of(trained or every, every, self._about["world"])

    def _check(
        self,
        key: str,
        frames: int,
        index: VideoIndex,
        actions: Float32[np.ndarray, "P A"] | None,
        states: Float[np.ndarray, "T X"] | None,
        labels: Mapping[str, int],
    ) -> None:
        if index.frames != frames:
            raise DataError(f"sample {key!r}: its video has {index.frames} frames, {frames} were announced")
        for name, array, rows, columns in (
            ("actions", actions, frames - 1, self._about["action_size"]),
            ("states", states, frames, len(self._about["state_names"])),
        ):
            shape = getattr(array, "shape", None)
            expected = (rows, columns) if columns else None
            if shape != expected:
                raise DataError(f"sample {key!r}: {name} of shape {shape}, expected {expected} for {frames} frames")
        names = self._about["label_names"]
        if set(labels) != set(names):
            raise DataError(f"sample {key!r}: its labels are {sorted(labels)}, the corpus has {sorted(names)}")

    def _event_member(self, key: str, frames: int, events: np.ndarray | None) -> dict[str, bytes]:
        """The file of events. Raises DataError if there are none and the writer was made for some, or the reverse."""
        if (events is None) == bool(self._events):
            raise DataError(
                f"sample {key!r}: expected {'events' if self._events else 'no events'}, found "
                f"{'none' if events is None else 'some'}"
            )
        if events is None:
            return {}
        if events.ndim != 2 or len(events) != frames - 1:
            raise DataError(f"sample {key!r}: events of shape {events.shape}, expected {frames - 1} rows")
        try:
            check_events(events, self._events)
        except DecodeError as error:
            raise DataError(f"sample {key!r}: {error.detail}") from error
        return {EVENTS: _npy(events)}

    def _spatial_members(self, key: str, frames: int, arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
        """Files of aligned arrays. Raises DataError if they are not those that the writer was made for."""
        if set(arrays) != set(self._spatial):
            expected = ", ".join(self._spatial) or "none"
            raise DataError(
                f"sample {key!r}: expected the aligned arrays {expected}, found {', '.join(arrays) or 'none'}"
            )
        for kind, info in self._spatial.items():
            if problem := info.problem(arrays[kind], frames):
                raise DataError(f"sample {key!r}: {problem}")
        return {info.member: encode(arrays[kind]) for kind, info in self._spatial.items()}


def _checked_numbers(
    key: str,
    actions: Float32[np.ndarray, "P A"] | None,
    states: Float[np.ndarray, "T X"] | None,
    names: Sequence[str],
) -> tuple[np.ndarray | None, np.ndarray | None, list[str]]:
    """Actions and states as float32, and the names of states that do not exist in the sample.

    Raises:
        DataError: numbers are not finite, or do not fit float32.
    """
    missing: tuple[int, ...] = ()
    try:
        if actions is not None:
            actions = as_float32(actions)
            check_actions(actions)
        if states is not None:
            states = as_float32(states)
            missing = check_states(states, names)
    except DecodeError as error:
        raise DataError(f"sample {key!r}: {error.detail}") from error
    return actions, states, [names[column] for column in missing]


def _whole_numbers(key: str, labels: Mapping[str, Any]) -> dict[str, int]:
    """Labels as integers. Raises DataError for other numbers."""
    numbers = {}
    for name, value in labels.items():
        number = isinstance(value, int | float | np.number) and math.isfinite(value)
        if not number or int(value) != value:
            raise DataError(f"sample {key!r}: label {name!r}: expected a whole number, found {value!r}")
        numbers[name] = int(value)
    return numbers


def _added(sums: Sequence[ActionSums | None]) -> ActionSums | None:
    """Of all together; None where there are none, or some are not known."""
    known = [one for one in sums if one is not None]
    if not known or len(known) < len(sums):
        return None
    return functools.reduce(ActionSums.plus, known)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return buffer.getvalue()


def common(values: Iterable[Value]) -> Value | None:
    """The common value; None if values differ, or there are none."""
    different = set(values)
    return different.pop() if len(different) == 1 else None


def summed(shards: Iterable[Finished]) -> SplitRecord:
    """The record of a split for the manifest."""
    finished = tuple(shards)
    return SplitRecord(
        episodes=sum(one.record.samples for one in finished),
        frames=sum(one.frames for one in finished),
        seconds=round(sum(one.seconds for one in finished), 3),
        shards=tuple(one.record for one in finished),
    )


def write_table(out: Path, finished: Sequence[Finished]) -> dict[str, Any]:
    """Write a row for every sample; return the common frame rate and short side of the videos, None if they differ."""
    rows: list[tuple] = []
    rates: set[float] = set()
    sides: set[int] = set()
    for number, one in enumerate(finished):
        file = one.record.file
        lines = (out / index_name(file)).read_bytes().splitlines()
        samples = [parse_line(line, file, file, one.split) for line in lines]
        rows += rows_of(samples, number, lines)
        for sample in samples:
            assert sample.video is not None
            sides.add(min(sample.video["width"], sample.video["height"]))
            if sample.media not in IMAGES:
                rates.add(round(sample.video["fps"], 3))
    with replacing(out / TABLE) as partial, partial.open("wb") as file:
        np.save(file, np.array(rows, ROW), allow_pickle=False)
    return {"fps": common(rates), "image_size": common(sides)}
