"""Adds masks, depth, keypoints or poses to shards: what a function says of each video is stored beside it.

    annotate("shards", "annotated", keypoints=find_hands, names={"keypoints": ["left", "right"]}, states=["keypoints"])

The function is handed over in Python and gets the frames of a video as they are stored. Videos are not re-encoded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from jepa_data.curate.measure import all_labels
from jepa_data.decode import get_backend
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import ACTIONS, EVENTS, IMAGES, MANIFEST, STATES, Manifest, Sample
from jepa_data.shards.media import still
from jepa_data.shards.read import ShardFiles, read_array, read_metadata, read_spatial
from jepa_data.shards.write import ShardWriter
from jepa_data.spatial.kinds import KINDS, MAPS, Kind, SpatialInfo, info_of
from jepa_data.writable import holding

# Takes all frames [T, h, w, 3], RGB, 0..255, and the metadata; gives an array [T, ...] of its kind.
Function = Callable[[UInt8[np.ndarray, "T h w 3"], dict[str, Any]], np.ndarray]
AXES = {
    "keypoints": ("x", "y", "visible"),
    3: ("x", "y", "angle"),
    7: ("x", "y", "z", "qw", "qx", "qy", "qz"),
}


def annotate(
    shards: Path | str,
    out: Path | str,
    *,
    mask: Function | None = None,
    depth: Function | None = None,
    keypoints: Function | None = None,
    pose: Function | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    unit: str | None = None,
    states: Sequence[str] = (),
    shard_mib: int = 64,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Write shards to OUT with arrays that functions compute from the frames. SHARDS stay as they are.

    Args:
        mask: gives uint8 [T, h, w], the class of each pixel.
        depth: float16 or float32 [T, h, w], distances; NaN where they are not known.
        keypoints: float32 [T, K, 2 or 3], x and y in pixels of the frames (and visibility, 0..1).
        pose: float32 [T, P, 3 or 7], x, y and angle in radians, or x, y, z and the unit quaternion w, x, y, z.
        names: by kind: of the classes of the mask, the keypoints or the bodies.
        unit: of depth and positions of poses, such as "m".
        states: "keypoints" or "pose": store their numbers as states too, so that predictors and probes can read them:
            NAME.x, NAME.y (of keypoints: in widths of the image), and so on. They replace states of these names.
        progress: called with the number of samples done, and of all.

    Raises:
        DataError: the shards cannot be opened or a sample of them cannot be read, OUT is not empty, or a function gives
            something else than its kind. An error of a function is raised with the sample's name.
    """
    functions: dict[Kind, Function] = {
        kind: f for kind, f in zip(KINDS, (mask, depth, keypoints, pose), strict=True) if f is not None
    }
    source = ShardSet.open(shards)
    _check(source, Path(out), functions, names or {}, states)
    work = _Work(source, functions, names or {}, unit, tuple(states))
    with holding(Path(out)):
        return work.write(Path(out), shard_mib * 2**20, overwrite, progress)


class _Work:
    """Annotates a folder of shards, one sample after the other."""

    def __init__(
        self,
        source: ShardSet,
        functions: Mapping[Kind, Function],
        names: Mapping[str, Sequence[str]],
        unit: str | None,
        states: tuple[str, ...],
    ) -> None:
        self.source = source
        self.files = ShardFiles(source.store)
        self.functions = functions
        self.names = names
        self.unit = unit
        self.states = states
        self.kept = tuple(info for info in source.manifest.spatial if info.kind not in functions)

    def write(self, out: Path, shard_bytes: int, overwrite: bool, progress: Callable[[int, int], None]) -> Manifest:
        samples = self.source.samples
        sizes = {(s.video["height"], s.video["width"]) for s in samples if s.video}
        annotated = map(self._annotated, samples)
        first = next(annotated, None)
        if first is None:
            raise DataError(f"{self.source.url}: holds no sample that can be read")
        infos = [*self.kept, *(self._info(kind, first.arrays[kind], len(sizes) == 1) for kind in self.functions)]
        with self._writer(out, infos, shard_bytes, overwrite) as writer:
            for done, one in enumerate(chain([first], annotated), 1):
                self._write(writer, one)
                progress(done, len(samples))
        return Manifest.from_file((out / MANIFEST).read_text())

    def _info(self, kind: Kind, array: np.ndarray, one_size: bool) -> SpatialInfo:
        """Maps of videos of different sizes may differ in size too."""
        unit = None if kind in ("mask", "keypoints") else self.unit
        info = info_of(kind, array, tuple(self.names.get(kind, ())), unit)
        return info if one_size or kind not in MAPS else info.model_copy(update={"shape": (None, None)})

    def _annotated(self, sample: Sample) -> "_Annotated":
        """A sample with all its arrays."""
        try:
            members = self.files.read(sample)
            frames = self._frames(sample, members[sample.media])
            metadata = read_metadata(members)
            arrays = read_spatial(self.files, sample, self.kept, len(frames))
        except DecodeError as error:
            raise DataError(
                f"{self.source.path(sample)}: sample {sample.key!r} cannot be read ({error.kind}: {error.detail}). "
                "Leave it out with `jepa data curate`"
            ) from error
        for kind, function in self.functions.items():
            try:
                arrays[kind] = function(frames, dict(metadata))
            except Exception as error:
                error.add_note(f"raised by the function for {kind} of sample {sample.key!r}")
                raise
            try:
                info_of(kind, arrays[kind])
            except DataError as error:
                raise DataError(f"{self.source.path(sample)}: sample {sample.key!r}: {error}") from error
        return _Annotated(sample, members, metadata, arrays, len(frames), frames.shape[2])

    def _frames(self, sample: Sample, data: bytes) -> UInt8[np.ndarray, "T h w 3"]:
        if sample.media in IMAGES:
            return still(data, None, None)
        with get_backend("pyav").open(data, sample.video_index()) as reader:
            return reader.frames(range(reader.index.frames))

    def _writer(self, out: Path, infos: Sequence[SpatialInfo], shard_bytes: int, overwrite: bool) -> ShardWriter:
        old = self.source.manifest
        new = [name for info in infos if info.kind in self.states for name in state_names(info)]
        self._columns = [i for i, name in enumerate(old.state_names) if name not in new]
        about = {"name": Path(self.source.url).name, "made": old.made}
        return ShardWriter(
            out,
            fps=old.fps,
            image_size=old.image_size,
            world=old.world,
            action_size=old.action_size,
            state_names=[*(old.state_names[i] for i in self._columns), *new],
            label_names=old.label_names,
            seed=old.seed,
            label_values=old.label_values,
            spatial=infos,
            events=old.events,
            made={"command": "annotate", "source": about, "kinds": list(self.functions)},
            shard_bytes=shard_bytes,
            overwrite=overwrite,
        )

    def _write(self, writer: ShardWriter, one: "_Annotated") -> None:
        sample = one.sample
        old = read_array(one.members, STATES, one.frames)
        columns = [] if old is None else [old[:, self._columns]]
        columns += [as_states(kind, array, one.width) for kind, array in one.arrays.items() if kind in self.states]
        states = np.concatenate(columns, 1) if columns else None
        metadata = one.metadata | {"labels": all_labels(one.metadata, sample, self.source.manifest)}
        writer.write(
            sample.split,
            sample.key,
            one.members[sample.media],
            one.frames,
            read_array(one.members, ACTIONS, one.frames - 1),
            states,
            metadata,
            ending=sample.media,
            source=sample.source,
            index=sample.video_index(),
            spatial=one.arrays,
            events=read_array(one.members, EVENTS, one.frames - 1),
        )


@dataclass(frozen=True)
class _Annotated:
    """A sample of so many frames, of this width in pixels, and its aligned arrays."""

    sample: Sample
    members: dict[str, bytes]
    metadata: dict[str, Any]
    arrays: dict[str, np.ndarray]
    frames: int
    width: int


def state_names(info: SpatialInfo) -> list[str]:
    """Names of the states that keypoints or poses become; without names they are counted."""
    count, width = info.shape
    assert count is not None and width is not None
    axes = AXES["keypoints"][:width] if info.kind == "keypoints" else AXES[width]
    names = info.names or [f"{info.kind}{i}" for i in range(count)]
    return [f"{name}.{axis}" for name in names for axis in axes]


def as_states(kind: str, array: Float32[np.ndarray, "T K C"], width: int) -> Float32[np.ndarray, "T X"]:
    """Keypoints in widths of the image, or poses, as rows of states."""
    if kind == "keypoints":
        array = array / np.array([width, width, 1], np.float32)[: array.shape[-1]]
    return array.reshape(len(array), -1)


def _check(
    source: ShardSet,
    out: Path,
    functions: Mapping[Kind, Function],
    names: Mapping[str, Sequence[str]],
    states: Sequence[str],
) -> None:
    """Raises DataError before the work."""
    if not functions:
        raise DataError(f"annotate: expected a function for at least one of {', '.join(KINDS)}, found none")
    if source.store.folder is not None and out.resolve() == source.store.folder.resolve():
        raise DataError(f"{out}: is the folder that is annotated. Give another one for the result")
    if unknown := sorted(set(names) - set(functions)):
        raise DataError(f"annotate: names are given for {unknown[0]!r}, which no function computes")
    there = {*functions, *(info.kind for info in source.manifest.spatial)} & {"keypoints", "pose"}
    if wrong := sorted(set(states) - there):
        raise DataError(f"annotate: states: expected some of {', '.join(sorted(there)) or 'none'}, found {wrong[0]!r}")
