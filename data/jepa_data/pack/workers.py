"""What a worker process does: one video, or some pieces of a long one, to samples.

A long video is looked at once; its pieces then become jobs of their own, so that several processes share them and no
process holds more than about a minute of encoded video.
"""

import io
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int64
from PIL import Image

from jepa_data.decode import Reader, VideoIndex, get_backend
from jepa_data.decode.base import Source
from jepa_data.decode.image import decode_image, probe_image
from jepa_data.errors import DecodeError
from jepa_data.pack.copy import at_borders, borders, contents, copy_packets, whole_file
from jepa_data.pack.cuts import Interval, batches, cut
from jepa_data.pack.recipe import Piece, Recipe, Rejected, scaled
from jepa_data.pack.reencode import frame_numbers, frame_seconds, packed_rate, reencode, steady_numbers
from jepa_data.pack.scenes import find_scenes
from jepa_data.process_pool import Alive, WorkerFailure
from jepa_data.sampling import clip_actions
from jepa_data.shards.finite import check_actions, check_states
from jepa_data.shards.manifest import ACTIONS, EVENTS, IMAGES, STATES
from jepa_data.shards.media import probe_media
from jepa_data.shards.read import ShardFiles, read_labels, read_metadata, read_npy, read_spatial
from jepa_data.sources.corpus import Item
from jepa_data.spatial.fitted import moved

FORMATS: dict[str, dict[str, Any]] = {"jpeg": {"format": "JPEG", "quality": 92}, "png": {"format": "PNG"}}
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
    metadata: Mapping[str, Any]  # its labels among them
    began: float  # seconds into the source where this video begins
    spatial: Mapping[str, np.ndarray] = field(default_factory=dict)
    events: np.ndarray | None = None

    @property
    def timed(self) -> bool:
        """Whether its frames belong to actions or states."""
        return self.actions is not None or self.states is not None


def work(job: Job, alive: Alive) -> Packed:
    """Pack a job. What cannot be read is in `rejected`; nothing is raised for it."""
    try:
        material = _material(job.item)
        if material.ending in IMAGES:
            return _image(job, material)
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
    if job.plan is not None:
        with get_backend("pyav").open(material.src, job.plan.index) as reader:
            return _pieces(job, material, reader, job.plan)
    with get_backend("pyav").open(material.src) as reader:
        cuts = _cuts(job, material, reader)
        kept = [piece for piece in cuts if piece.seconds >= job.recipe.min_seconds - 1e-6]
        now, *later = [Plan(part, len(cuts), reader.index) for part in batches(kept, BATCH_SECONDS) or [()]]
        packed = _pieces(job, material, reader, now)
    return replace(packed, short=len(cuts) - len(kept), rest=tuple(replace(job, plan=plan) for plan in later))


def _pieces(job: Job, material: _Material, reader: Reader, plan: Plan) -> Packed:
    item = job.item
    keys: list[str] = []
    pieces: list[Piece] = []
    rejected: list[Rejected] = []
    for piece in plan.cuts:
        key = item.key if plan.total == 1 else f"{item.key}-{piece.number:04d}"
        try:
            if key not in job.done:
                pieces.append(_piece(job, material, reader, piece, key))
            keys.append(key)
        except DecodeError as error:
            rejected.append(_rejected(item, error, item if plan.total == 1 else piece))
    return Packed(item, tuple(keys), tuple(pieces), tuple(rejected))


def _cuts(job: Job, material: _Material, reader: Reader) -> list[Interval]:
    """All pieces of a video, those that are too short too."""
    index = reader.index
    seconds = frame_seconds(index)
    wanted = _wanted(job.item)
    first, last = _frames(index, wanted)
    if last <= first:
        raise DecodeError("out of range", f"no frame is shown from {wanted.start:g} s on; it ends at {seconds[-1]:g} s")
    frames = last - first
    for name, array, rows in (("actions", material.actions, frames - 1), ("states", material.states, frames)):
        if array is not None and len(array) != rows:
            recorded = f"{len(array)} {name} were recorded, expected {rows}"
            raise DecodeError("out of step", f"its video has {frames} frames; {recorded}")
    scenes: list[float] = []
    if job.recipe.scene_threshold is not None:
        scenes = find_scenes(reader, first, last, job.recipe.scene_threshold)
    cuts = cut(float(seconds[first]), float(seconds[last]), scenes, job.recipe.max_seconds)
    if job.recipe.video == "encode" or _whole(job.item, len(cuts)):
        return cuts
    return at_borders(cuts, index, borders(material.src, index), material.timed)


def _whole(item: Item, pieces: int) -> bool:
    """Whether a file is stored uncut."""
    return pieces == 1 and item.start is None and item.end is None


def _wanted(item: Item) -> Interval:
    """The part of its file that is an item."""
    return Interval(0, item.start or 0.0, np.inf if item.end is None else item.end)


def _image(job: Job, material: _Material) -> Packed:
    item = job.item
    if item.key in job.done:
        return Packed(item, (item.key,))
    data, index = _fitted_image(contents(material.src), job.recipe)
    metadata = {**material.metadata, "source": item.name}
    source = {"url": item.name}
    before = probe_image(contents(material.src)) if material.spatial else index
    spatial = _scaled_spatial(material, np.arange(1), before, index)
    piece = Piece(item.key, material.ending, data, index, None, None, metadata, source, spatial)
    return Packed(item, (item.key,), (piece,))


def _piece(job: Job, material: _Material, reader: Reader, piece: Interval, key: str) -> Piece:
    """A piece of a video as a sample. Raises DecodeError."""
    item = job.item
    index = reader.index
    first, last = _frames(index, piece)
    numbers = np.arange(first, last, dtype=np.int64)
    stride = 1
    ending = "mp4"
    if job.recipe.video == "copy" and _whole(item, 1) and (first, last) == (0, index.frames):
        data, ending = whole_file(material.src, material.ending)
    elif job.recipe.video == "copy":
        data = copy_packets(material.src, index, first, last)
    else:
        fps = packed_rate(index, job.recipe)
        if material.timed:
            numbers, stride = steady_numbers(index, first, last, fps)
        else:
            numbers = frame_numbers(index, first, last, fps)
        data = reencode(reader, numbers, fps, job.recipe)
    stored = probe_media(data, ending)
    if stored.frames != len(numbers):
        raise DecodeError("damaged", f"{len(numbers)} frames were packed, {stored.frames} can be read back")
    # Rows of actions and states count from the first frame of the item.
    rows = numbers - _frames(index, _wanted(item))[0]
    actions = states = None
    if material.actions is not None:
        actions = clip_actions(material.actions, rows, stride)
        check_actions(actions)
    if material.states is not None:
        states = material.states[rows]
        check_states(states)
    part = {"start": round(piece.start + material.began, 6), "end": round(piece.end + material.began, 6)}
    name = material.metadata.get("source", item.name)  # of a sample; other items have none
    return Piece(
        key=key,
        ending=ending,
        data=data,
        index=stored,
        actions=actions,
        states=states,
        metadata={**material.metadata, "source": name, **part},
        source={"url": name, **part},
        spatial=_scaled_spatial(material, rows, index, stored),
        events=None if material.events is None else clip_actions(material.events, rows, stride),
    )


def _material(item: Item) -> _Material:
    sample = item.sample
    if sample is None:
        metadata = {**item.metadata, "labels": dict(item.labels)}
        return _Material(item.path, item.ending, item.actions, item.states, metadata, 0.0)
    with closing(ShardFiles(item.path)) as files:
        members = files.read(sample)
        frames = sample.frames or probe_media(members[sample.media], sample.media).frames
        spatial = read_spatial(files, sample, item.spatial, frames)
    rows = {ACTIONS: frames - 1, STATES: frames, EVENTS: frames - 1}
    arrays = {name: read_npy(members[name], count) for name, count in rows.items() if name in members}
    metadata = read_metadata(members)
    return _Material(
        src=members[sample.media],
        ending=sample.media,
        actions=arrays.get(ACTIONS),
        states=arrays.get(STATES),
        metadata={**metadata, "labels": sample.labels | read_labels(metadata)},
        began=float(sample.source.get("start") or 0.0),
        spatial=spatial,
        events=arrays.get(EVENTS),
    )


def _scaled_spatial(
    material: _Material, rows: Int64[np.ndarray, " T"], before: VideoIndex, after: VideoIndex
) -> dict[str, np.ndarray]:
    """Aligned arrays of some frames. Keypoints follow the size of the image; maps keep their own resolution."""
    arrays = {kind: array[rows] for kind, array in material.spatial.items()}
    if "keypoints" in arrays:
        whole = (0, 0, before.height, before.width)
        arrays["keypoints"] = moved(arrays["keypoints"], whole, (after.height, after.width))
    return arrays


def _frames(index: VideoIndex, piece: Interval) -> tuple[int, int]:
    """Numbers of the first frame of a piece and of the first after it."""
    seconds = frame_seconds(index)
    slack = min(5e-4, float(seconds[-1]) / index.frames / 4)
    first, last = np.searchsorted(seconds[:-1], [piece.start - slack, piece.end - slack])
    return int(first), int(last)


def _rejected(item: Item, error: DecodeError, part: Item | Interval | None = None) -> Rejected:
    part = part or item
    return Rejected(item.name, part.start, part.end, error.kind, error.detail)


def _fitted_image(data: bytes, recipe: Recipe) -> tuple[bytes, VideoIndex]:
    """An image as it is where it fits, else upright and scaled; and its index. Raises DecodeError."""
    index = probe_image(data)
    if recipe.video == "copy" or min(index.height, index.width) <= recipe.short_side:
        return data, index
    size = scaled(index.height, index.width, recipe.short_side)
    buffer = io.BytesIO()
    upright = Image.fromarray(decode_image(data, size=size))
    upright.save(buffer, **FORMATS[index.codec])
    stored = buffer.getvalue()
    return stored, probe_image(stored)
