"""What a worker process does: one video, or some pieces of a long one, to samples.

A long video is looked at once; its pieces then become jobs of their own, so that several processes share them and no
process holds more than about a minute of encoded video.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_data.decode import Reader, VideoIndex, get_backend
from jepa_data.decode.base import Source
from jepa_data.errors import DecodeError
from jepa_data.pack.copy import Span, at_borders, borders, copy_packets, whole_file
from jepa_data.pack.cuts import Interval, batches, cut
from jepa_data.pack.recipe import Piece, Recipe, Rejected
from jepa_data.pack.reencode import frame_numbers, frame_seconds, packed_rate, reencode, steady_numbers
from jepa_data.process_pool import Alive, WorkerFailure
from jepa_data.sampling import clip_actions
from jepa_data.shards.finite import check_actions, check_states
from jepa_data.shards.manifest import ACTIONS, IMAGES, STATES
from jepa_data.shards.media import probe_media
from jepa_data.shards.read import ShardFiles, read_labels, read_metadata, read_npy
from jepa_data.sources.corpus import Item

BATCH_SECONDS = 60.0  # of video that one job encodes, where pieces allow it


@dataclass(frozen=True, slots=True)
class Job:
    """Part of an item to pack.

    Attributes:
        done: keys of pieces that are written already.
        plan: of a video that was looked at: the pieces to make.
    """

    item: Item
    recipe: Recipe
    done: frozenset[str] = frozenset()
    plan: "Plan | None" = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Some pieces of a video, of `total` in all; its index saves another pass over a long file."""

    cuts: tuple[Interval, ...]
    total: int
    index: VideoIndex


@dataclass(frozen=True, slots=True)
class Packed:
    """What became of a job. `keys` names all its samples, also those that were written before."""

    item: Item
    keys: tuple[str, ...] = ()
    pieces: tuple[Piece, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    short: int = 0
    rest: tuple[Job, ...] = ()


@dataclass(frozen=True, slots=True)
class _Material:
    """An item, opened: its bytes or file, and what belongs to its frames."""

    src: Source
    ending: str
    actions: np.ndarray | None
    states: np.ndarray | None
    metadata: Mapping[str, Any]
    began: float  # seconds into the source where this video begins


def work(job: Job, alive: Alive) -> Packed:
    """Pack a job. What cannot be read is in `rejected`; nothing is raised for it."""
    try:
        material = _material(job.item)
        if material.ending in IMAGES:
            return _picture(job, material)
        return _video(job, material)
    except DecodeError as error:
        return Packed(job.item, rejected=(_rejected(job.item, error),))
    except OSError as error:
        missing = DecodeError("missing", f"the file cannot be read ({error.strerror or error})")
        return Packed(job.item, rejected=(_rejected(job.item, missing),))


def crashed(job: Job, lost: WorkerFailure) -> Packed:
    """What became of a job that took its process with it."""
    error = DecodeError("crash", f"{lost.detail}: out of memory, or a defect of FFmpeg")
    return Packed(job.item, rejected=(_rejected(job.item, error),))


def _video(job: Job, material: _Material) -> Packed:
    item = job.item
    with get_backend("pyav").open(material.src, None if job.plan is None else job.plan.index) as reader:
        plan, short, rest = (job.plan, 0, ()) if job.plan is not None else _planned(job, material, reader)
        keys, pieces, rejected = list[str](), list[Piece](), list[Rejected]()
        for cut_out in plan.cuts:
            key = item.key if plan.total == 1 else f"{item.key}-{cut_out.number:04d}"
            try:
                if key not in job.done:
                    pieces.append(_piece(job, material, reader, cut_out, key))
                keys.append(key)
            except DecodeError as error:
                rejected.append(_rejected(item, error, None if plan.total == 1 else cut_out))
    return Packed(item, tuple(keys), tuple(pieces), tuple(rejected), short, rest)


def _planned(job: Job, material: _Material, reader: Reader) -> tuple[Plan, int, tuple[Job, ...]]:
    """Pieces to make now, how many were too short, and jobs for the others."""
    cuts, index = _cuts(job, material, reader), reader.index
    if job.recipe.video == "copy" and not _whole(job.item, len(cuts)):
        timed = material.actions is not None or material.states is not None
        seconds = frame_seconds(index)
        spans = at_borders(cuts, index, borders(material.src, index), timed)
        cuts = [Interval(span.number, float(seconds[span.first]), float(seconds[span.last])) for span in spans]
    kept = [piece for piece in cuts if piece.seconds >= job.recipe.min_seconds - 1e-6]
    now, *later = batches(kept, BATCH_SECONDS) or [()]
    rest = tuple(Job(job.item, job.recipe, job.done, Plan(part, len(cuts), index)) for part in later)
    return Plan(now, len(cuts), index), len(cuts) - len(kept), rest


def _whole(item: Item, pieces: int) -> bool:
    """Whether a file is stored uncut."""
    return pieces == 1 and item.start is None and item.end is None


def _cuts(job: Job, material: _Material, reader: Reader) -> list[Interval]:
    from jepa_data.pack.scenes import find_scenes

    item, recipe, index = job.item, job.recipe, reader.index
    seconds = frame_seconds(index)
    first, last = _frames(index, Interval(0, item.start or 0.0, float(seconds[-1]) if item.end is None else item.end))
    if last <= first:
        raise DecodeError("out of range", f"no frame is shown from {item.start:g} s on; it ends at {seconds[-1]:g} s")
    for name, array, rows in (
        ("actions", material.actions, last - first - 1),
        ("states", material.states, last - first),
    ):
        if array is not None and len(array) != rows:
            raise DecodeError(
                "out of step",
                f"its video has {last - first} frames; {len(array)} {name} were recorded, expected {rows}",
            )
    threshold = recipe.scene_threshold
    scenes = [] if threshold is None else find_scenes(reader, first, last, threshold)
    return cut(float(seconds[first]), float(seconds[last]), scenes, recipe.max_seconds)


def _picture(job: Job, material: _Material) -> Packed:
    from jepa_data.pack.images import picture

    item = job.item
    if item.key in job.done:
        return Packed(item, (item.key,))
    raw = material.src if isinstance(material.src, bytes) else Path(material.src).read_bytes()
    data, index = picture(raw, job.recipe)
    metadata = {**material.metadata, "labels": _labels(item, material), "source": item.name}
    return Packed(
        item,
        (item.key,),
        (Piece(item.key, material.ending, data, index, None, None, metadata, {"url": item.name}),),
    )


def _piece(job: Job, material: _Material, reader: Reader, piece: Interval, key: str) -> Piece:
    """A piece of a video as a sample. Raises DecodeError."""
    item, recipe, index = job.item, job.recipe, reader.index
    first, last = _frames(index, piece)
    numbers, stride, ending = np.arange(first, last, dtype=np.int64), 1, "mp4"
    if recipe.video == "copy" and _whole(item, 1) and (first, last) == (0, index.frames):
        data, ending = whole_file(material.src, material.ending)
    elif recipe.video == "copy":
        data = copy_packets(material.src, index, Span(piece.number, first, last))
    else:
        fps = packed_rate(index, recipe)
        if material.actions is None and material.states is None:
            numbers = frame_numbers(index, first, last, fps)
        else:
            numbers, stride = steady_numbers(index, first, last, fps)
        data = reencode(reader, numbers, fps, recipe)
    stored = probe_media(data, ending)
    if stored.frames != len(numbers):
        raise DecodeError("damaged", f"{len(numbers)} frames were packed, {stored.frames} can be read back")
    # Rows of actions and states count from the first frame of the item.
    rows = numbers - _frames(index, Interval(0, item.start or 0.0, np.inf))[0]
    actions = None if material.actions is None else clip_actions(material.actions, rows, stride)
    states = None if material.states is None else material.states[rows]
    if actions is not None:
        check_actions(actions)
    if states is not None:
        check_states(states)
    start, end = round(piece.start + material.began, 6), round(piece.end + material.began, 6)
    name = material.metadata.get("source", item.name) if item.sample is not None else item.name
    return Piece(
        key=key,
        ending=ending,
        data=data,
        index=stored,
        actions=actions,
        states=states,
        metadata={**material.metadata, "labels": _labels(item, material), "source": name, "start": start, "end": end},
        source={"url": name, "start": start, "end": end},
    )


def _material(item: Item) -> _Material:
    if item.sample is None:
        _check_name(item.path)
        return _Material(item.path, item.ending, item.actions, item.states, item.metadata, 0.0)
    sample = item.sample
    files = ShardFiles(item.path)
    try:
        members = files.read(sample)
    finally:
        files.close()
    frames = sample.frames or probe_media(members[sample.media], sample.media).frames
    return _Material(
        src=members[sample.media],
        ending=sample.media,
        actions=read_npy(members[ACTIONS], frames - 1) if ACTIONS in members else None,
        states=read_npy(members[STATES], frames) if STATES in members else None,
        metadata=read_metadata(members),
        began=float(sample.source.get("start") or 0.0),
    )


def _labels(item: Item, material: _Material) -> dict[str, int]:
    return dict(item.labels) if item.sample is None else item.sample.labels | read_labels(material.metadata)


def _check_name(path: Path) -> None:
    """Raises DecodeError for text from a table that can be no file's name."""
    if "\0" in str(path):
        raise DecodeError("missing", "no file can have this name: it holds a zero byte")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise DecodeError("missing", f"no file can have this name ({error.reason})") from error


def _frames(index: VideoIndex, piece: Interval) -> tuple[int, int]:
    """Numbers of the first frame of a piece and of the first after it."""
    seconds = frame_seconds(index)
    slack = min(5e-4, float(seconds[-1]) / index.frames / 4)
    first, last = np.searchsorted(seconds[:-1], [piece.start - slack, piece.end - slack])
    return int(first), int(last)


def _rejected(item: Item, error: DecodeError, piece: Interval | None = None) -> Rejected:
    start, end = (item.start, item.end) if piece is None else (piece.start, piece.end)
    return Rejected(item.name, start, end, error.kind, error.detail)
