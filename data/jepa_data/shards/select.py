"""Which samples of a source a run can draw clips from: those that are long enough, and readable."""

from dataclasses import dataclass

import numpy as np
import torch

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError, DecodeError
from jepa_data.sampling import long_enough
from jepa_data.shards.clips import Bad, Corpus
from jepa_data.shards.index import ShardSet


@dataclass(frozen=True)
class Selected:
    """What can be drawn from, how many samples are shorter than a clip, and which cannot be read."""

    corpus: Corpus
    short: int
    bad: tuple[Bad, ...]


def select(shards: ShardSet, split: str, config: StreamConfig) -> Selected:
    """Looks at the table alone, and at the videos of shards whose index was lost.

    Raises:
        DataError: a video is shorter than a clip and `config.short` is "error", or nothing is left.
    """
    samples, bad = shards.split(split), list[Bad]()
    for number in np.flatnonzero(samples.rows["frames"] == 0).tolist():
        sample = samples[number]
        try:
            samples.replace(number, shards.probed(sample))
        except DecodeError as error:
            bad.append(Bad(sample.key, sample.shard, error.kind, error.detail, 0, 0))
    rows = samples.rows
    known = rows["frames"] > 0
    enough = long_enough(rows["frames"], rows["seconds"], config.clip_frames, config.fps, config.stride) | rows["still"]
    short = known & ~enough
    count = int(np.count_nonzero(short))
    if count and config.short == "error":
        first = samples[int(np.argmax(short))]
        raise DataError(
            f"{shards.path(first)}: sample {first.key!r} has {first.frames} frames, a clip needs {_clip_text(config)}; "
            f"{count} of {int(known.sum())} videos are too short. Lower it, or drop short videos with data.short: skip"
        )
    usable = known & enough
    if not usable.any():
        what = f"all {count} videos are shorter than a clip ({_clip_text(config)})" if count else "no samples"
        raise DataError(f"{shards.url}: nothing to draw from in {split!r}: {what}")
    # In shared memory, so that workers do not each copy it.
    chosen = None if usable.all() else torch.from_numpy(np.flatnonzero(usable)).share_memory_()
    return Selected(Corpus(shards.store, samples, chosen), count, tuple(bad))


def _clip_text(config: StreamConfig) -> str:
    rate = (
        f" at {config.fps:g} fps"
        if config.fps is not None
        else f", every {config.stride}th"
        if config.stride > 1
        else ""
    )
    return f"{config.clip_frames}{rate} (data.clip_frames)"
