"""Select the samples of a source that are readable and long enough for a clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError, DecodeError
from jepa_data.sampling import long_enough
from jepa_data.shards.index import ShardSet
from jepa_data.shards.quarantine import listed, read
from jepa_data.spatial.kinds import SpatialInfo
from jepa_data.stream.clips import ROWS, Bad, Corpus


@dataclass(frozen=True)
class Selected:
    """Usable samples, numbers of samples that are too short or in quarantine, and unreadable samples."""

    corpus: Corpus
    short: int
    skipped: int
    bad: tuple[Bad, ...]


def select(shards: ShardSet, split: str, config: StreamConfig, source: int = 0) -> Selected:
    """Select by the table only; videos are read if the index of their shard is missing.

    Args:
        source: index of this source in the mix.

    Raises:
        DataError: a video is shorter than a clip and `config.short` is "error", or nothing is left.
    """
    samples = shards.split(split)
    bad: list[Bad] = []
    for number in np.flatnonzero(samples.rows["frames"] == 0).tolist():
        sample = samples[number]
        try:
            samples.replace(number, shards.probed(sample))
        except DecodeError as error:
            bad.append(Bad(sample.key, sample.shard, error.kind, error.detail, 0, 0, source))
    is_long_enough = np.empty(len(samples), bool)
    for first in range(0, len(samples), ROWS):  # in parts: what is reckoned with takes more memory than the table
        rows = samples.rows[first : first + ROWS]
        fits = long_enough(rows["frames"], rows["seconds"], config.clip_frames, config.fps, config.stride)
        is_long_enough[first : first + ROWS] = fits | rows["still"]
    skipped = np.zeros(len(samples), np.bool_)
    if (file := config.sources[source].skip) is not None:
        skipped = listed(shards, split, read(Path(file)))
    known = (samples.rows["frames"] > 0) & ~skipped
    short = known & ~is_long_enough
    count = int(np.count_nonzero(short))
    needed = f"{config.clip_frames}{config.rate_text()} (data.clip_frames)"
    if count and config.short == "error":
        first = samples[int(np.argmax(short))]
        raise DataError(
            f"{shards.path(first)}: sample {first.key!r} has {first.frames} frames, a clip needs {needed}; "
            f"{count} of {int(known.sum())} videos are too short. Lower it, or drop short videos with data.short: skip"
        )
    usable = known & is_long_enough
    if not usable.any():
        what = f"all {count} videos are shorter than a clip ({needed})" if count else "no samples"
        raise DataError(f"{shards.url}: nothing to draw from in {split!r}: {what}")
    # In shared memory, so that workers do not each copy it.
    chosen = None if usable.all() else torch.from_numpy(np.flatnonzero(usable)).share_memory_()
    about = shards.manifest
    stride = about.action_width(config.fps, config.stride) // max(1, about.action_size)
    spatial = spatial_infos(shards, config.spatial)
    corpus = Corpus(shards.store, samples, chosen, about.action_size, stride, len(about.state_names), spatial)
    return Selected(corpus, count, int(np.count_nonzero(skipped)), tuple(bad))


def spatial_infos(shards: ShardSet, kinds: Sequence[str]) -> tuple[SpatialInfo, ...]:
    """The aligned arrays of these kinds. Raises DataError if the shards have none of a kind."""
    there = {info.kind: info for info in shards.manifest.spatial}
    for kind in kinds:
        if kind not in there:
            has = f"They have: {', '.join(there)}" if there else "They have no aligned arrays"
            raise DataError(
                f"data.spatial: {shards.url} has no {kind}. {has}. Record a world with --spatial {kind}, or add it: "
                "jepa_data.annotate"
            )
    return tuple(there[kind] for kind in kinds)
