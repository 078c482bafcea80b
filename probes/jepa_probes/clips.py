"""The clips that a model is probed on: those of its run, or of other shards at its rate and size."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jepa.config import UserError
from jepa.models.config import ModelConfig
from jepa.training.config import PretrainConfig
from jepa_data.config import StreamConfig
from jepa_data.stream.loader import ClipLoader, make_loader
from jepa_probes.probing.config import ClipsConfig
from jepa_probes.probing.state import find_targets

CACHE_MIB = 1024  # the videos of a small corpus are decoded once for all encoders
EVALUATION_BATCH = 64


def clips_of(
    folder: str | Path, about: ModelConfig, trained: PretrainConfig | None, config: ClipsConfig
) -> StreamConfig:
    """Clips as in training: the run's own, or of other shards at the model's rate and size.

    Raises:
        UserError: a model without a run needs shards; `fps` goes with shards.
    """
    if config.shards is None:
        if config.fps is not None:
            raise UserError("fps goes with shards=FOLDER; the run's own clips have the rate they were trained at")
        if trained is None:
            raise UserError(f"{folder} is a model without a run: say what to probe it on, shards=FOLDER")
        return trained.data
    p = about.preprocessing
    return StreamConfig(
        shards=config.shards,
        batch_size=EVALUATION_BATCH,
        clip_frames=about.frames,
        fps=config.fps or p.fps,
        image_size=p.image_size,
        fit=p.fit,
        shortest_edge=p.shortest_edge,
    )


def probe_loader(
    data: StreamConfig,
    config: ClipsConfig,
    split: str,
    clip_frames: int | None = None,
    *,
    spatial: Sequence[str] = (),
) -> ClipLoader:
    """Every episode of a split once, in order.

    Args:
        clip_frames: one clip of each episode, of so many frames; None: as the config says.
        spatial: arrays that are read with the frames.
    """
    changes = {
        "batch_size": EVALUATION_BATCH,
        "clip_frames": clip_frames or config.clip_frames or data.clip_frames,
        "clips_per_video": 1 if clip_frames else config.clips_per_video,
        "cache_mib": CACHE_MIB,
        "spatial": tuple(spatial),
    }
    return make_loader(data.model_copy(update=changes), split, seed=config.seed, shuffle=False)


def state_names(loaders: Mapping[str, ClipLoader]) -> tuple[str, ...]:
    """Of the states in the clips; none where sources that are mixed have different ones."""
    names = next(iter(loaders.values())).shards.manifest.state_names
    if all(corpus.states for loader in loaders.values() for corpus in loader.corpora):
        return names
    return ()


def check_headline(config: ClipsConfig, names: tuple[str, ...]) -> None:
    """Raises UserError for a group that the states do not have."""
    groups = {target.group for target in find_targets(names)}
    if unknown := set(config.headline or ()) - groups:
        there = ", ".join(sorted(groups)) or "none"
        raise UserError(f"headline: expected groups of these states ({there}), found {', '.join(sorted(unknown))}")
