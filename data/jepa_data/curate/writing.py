"""The samples that stay, written to new shards: their splits and order kept, and the bytes of their videos.

Only with a `denoise` stage are videos encoded again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jepa_data.curate.config import CurateConfig, Denoise, Look, Resample
from jepa_data.curate.measure import all_labels, looked_at
from jepa_data.curate.resample import as_stored, resampled
from jepa_data.curate.stages import common_rate
from jepa_data.curate.table import Table
from jepa_data.decode import VideoIndex
from jepa_data.denoise import Denoised, DenoisedVideos
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Sample
from jepa_data.shards.media import probe_media
from jepa_data.shards.read import ShardFiles, read_metadata, read_spatial
from jepa_data.shards.write import ShardWriter

# Takes the frames that were looked at, [T, h, w, 3], RGB, 0..255, and the metadata; gives anything JSON can hold.
Annotate = Callable[[UInt8[np.ndarray, "T h w 3"], dict[str, Any]], Any]


def new_writer(
    shards: ShardSet,
    table: Table,
    kept: Sequence[int],
    out: Path,
    config: CurateConfig,
    annotations: Sequence[str],
    overwrite: bool,
) -> ShardWriter:
    """A writer for what stays; rates and widths are those after resampling."""
    old = shards.manifest
    names = old.state_names
    fps = old.fps
    action_size = old.action_size
    if resample_stage(config) is not None:
        action_size, states = table.widths[kept[0]].tolist()
        if states != len(names):
            names = tuple(f"state_{i}" for i in range(states))
    if fps is None and action_size:
        fps = common_rate(table, np.array(kept, np.int64))
    return ShardWriter(
        out,
        fps=fps,
        image_size=old.image_size,
        world=old.world,
        action_size=action_size,
        state_names=names,
        label_names=old.label_names,
        seed=old.seed,
        label_values=old.label_values,
        spatial=old.spatial,
        events=old.events,
        made=_made(shards, config, annotations),
        shard_bytes=config.shard_mib * 2**20,
        overwrite=overwrite,
    )


def write_samples(
    writer: ShardWriter,
    shards: ShardSet,
    kept: Sequence[int],
    config: CurateConfig,
    annotate: Mapping[str, Annotate],
    processes: int,
    progress: Callable[[int], None],
) -> Denoised | None:
    """Copy samples, one after the other.

    Args:
        processes: videos that a `denoise` stage filters at a time.

    Returns:
        What became of the videos; None without a `denoise` stage.

    Raises:
        DataError: a sample changed since it was measured, or an annotation is nothing that JSON can hold.
    """
    files = ShardFiles(shards.store)
    resample = resample_stage(config)
    denoised = DenoisedVideos(shards, kept, denoise_stage(config), processes)
    for done, (row, cleaned) in enumerate(zip(kept, denoised, strict=True), 1):
        sample = shards.samples[row]
        try:
            members = files.read(sample)
            index = sample.video_index() or probe_media(members[sample.media], sample.media)
            metadata = read_metadata(members)
            if resample is None:
                parts = as_stored(members, metadata, index.frames)
            else:
                parts = resampled(members, metadata, index.seconds, resample)
            spatial = read_spatial(files, sample, shards.manifest.spatial, index.frames)
            noted = _annotated(sample, members, index, parts.metadata, config.look, annotate)
        except DecodeError as error:
            raise DataError(
                f"{shards.path(sample)}: sample {sample.key!r} could be read when it was measured and cannot be now "
                f"({error.kind}: {error.detail}). Has something written to the shards? Begin again"
            ) from error
        noted["labels"] = all_labels(metadata, sample, shards.manifest)
        writer.write(
            sample.split,
            sample.key,
            members[sample.media] if cleaned is None else cleaned,
            index.frames,
            parts.actions,
            parts.states,
            noted,
            ending=sample.media if cleaned is None else "mp4",
            source=sample.source,
            index=index if cleaned is None else None,
            spatial=spatial,
            events=parts.events,
        )
        progress(done)
    return denoised.result()


def resample_stage(config: CurateConfig) -> Resample | None:
    return next((stage for stage in config.stages if isinstance(stage, Resample)), None)


def denoise_stage(config: CurateConfig) -> Denoise | None:
    return next((stage for stage in config.stages if isinstance(stage, Denoise)), None)


def _annotated(
    sample: Sample,
    members: Mapping[str, bytes],
    index: VideoIndex,
    metadata: dict[str, Any],
    look: Look,
    annotate: Mapping[str, Annotate],
) -> dict[str, Any]:
    """The metadata with what the callables say. An error of theirs is raised, with the sample's name."""
    if not annotate:
        return metadata
    frames = looked_at(members[sample.media], sample.media, index, look)
    for name, callable_ in annotate.items():
        try:
            value = callable_(frames, dict(metadata))
        except Exception as error:
            error.add_note(f"raised by the annotation {name!r} of sample {sample.key!r}")
            raise
        try:
            metadata[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"annotation {name!r} of sample {sample.key!r}: expected what JSON can hold, found "
                f"{type(value).__name__} ({error})"
            ) from error
    return metadata


def _made(shards: ShardSet, config: CurateConfig, annotations: Sequence[str]) -> dict[str, Any]:
    old = shards.manifest
    samples = {split: record.episodes for split, record in old.splits.items()}
    source = {"name": source_name(shards), "samples": samples, "made": old.made}
    stages = [stage.model_dump(mode="json") for stage in config.stages]
    return {"command": "curate", "source": source, "stages": stages, "annotations": list(annotations)}


def source_name(shards: ShardSet) -> str:
    """The folder's name, without where it lies on this machine."""
    folder = shards.store.folder
    if folder is None:
        return shards.url
    return folder.resolve().name
