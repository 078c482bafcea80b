"""What a diagnosis learns from, and what it is held against: the run's recordings, training and held-out episodes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from jepa.config import UserError
from jepa.training.config import PretrainConfig
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_data.sampling import long_enough
from jepa_data.shards.index import ShardSet
from jepa_data.shards.store import open_store
from jepa_data.stream.loader import make_loader
from jepa_probes.diagnosis.config import DiagnoseConfig
from jepa_probes.planning.recordings import clip_loader, encode_goals
from jepa_probes.probing import baselines
from jepa_probes.probing.features import Encode, Features, extract_all

logger = logging.getLogger(__name__)

PRETRAINED = "pretrained"
RANDOM = "random_init"
SUPERVISED = "supervised"
GOALS = "goals"  # of the run's encoder: each step as a goal image shows it


@dataclass(frozen=True)
class Subject:
    """Who is diagnosed, and how.

    Attributes:
        config: its `plan` is one that `fitted` has seen.
        data: how its clips are cut, of the run's own recordings.
        fresh: builds its encoder again, untrained.
        trained: the budget of the run; None: there is no supervised encoder to compare with.
        folder: of the run, for messages.
    """

    config: DiagnoseConfig
    model: LatentWorldModel
    data: StreamConfig
    fresh: Callable[[], nn.Module]
    trained: PretrainConfig | None = None
    folder: str = "the run"


def encoders(subject: Subject) -> dict[str, nn.Module]:
    """The encoder, and those that it is read beside."""
    model = subject.model
    data = subject.data
    seed = (subject.trained or subject.config).seed
    some = make_loader(data, "train", seed=seed, total_batches=8)
    made = {
        PRETRAINED: model.encoder,
        RANDOM: baselines.random_init(subject.fresh, seed, some, model.prepare_clips),
    }
    if subject.config.supervised and subject.trained is not None:
        trained = subject.trained
        logger.info(f"training the supervised encoder for {trained.trainer.steps} steps")
        names = some.shards.manifest.state_names
        made[SUPERVISED] = baselines.train_supervised_like(trained, subject.fresh, data, model.prepare_clips, names)
    return made


def read_split(subject: Subject, split: str, steps: int, wanted: dict[str, nn.Module]) -> dict[str, Features]:
    """Latents of each encoder, and the true states and actions, of clips of so many latent steps.

    Raises:
        UserError: the recordings hold no states, or actions of another width than the model's.
    """
    model = subject.model
    config = subject.config
    frames = model.spec.frames_per_step
    changes = {"clip_frames": steps * frames, "clips_per_video": config.clips_per_video}
    loader = clip_loader(model, subject.data, split, config.seed, changes)
    names = loader.shards.manifest.state_names
    if not names or not all(corpus.states for corpus in loader.corpora):
        raise UserError(f"{subject.folder}: its recordings hold no true states, which a diagnosis compares with")
    encodes: dict[str, Encode] = {name: baselines.encode_with(model, encoder) for name, encoder in wanted.items()}
    if split == "train":
        encodes[GOALS] = partial(encode_goals, model)
    limits = {"train": config.clips, "test": config.test_clips}
    return extract_all(encodes, loader, frames, names, clips=limits[split])


def clip_steps(data: StreamConfig, frames: int, split: str, wanted: int) -> int:
    """Latent steps of the longest clips that every recording is long enough for (`short: skip`: half), or `wanted`.

    Args:
        frames: of a latent step.

    Raises:
        UserError: some hold less than two.
    """
    rows = ShardSet.open(open_store(data.folder, data.remote)).split(split).rows
    if not len(rows):
        raise UserError(f"{data.folder}: no episodes in {split!r}; record some, or choose another test_share")
    share = 0.5 if data.short == "skip" else 1.0
    for steps in range(wanted, 1, -1):
        if long_enough(rows["frames"], rows["seconds"], steps * frames, data.fps, data.stride).mean() >= share:
            return steps
    raise UserError(
        f"{data.folder}: some recordings in {split!r} are shorter than two latent steps ({2 * frames} frames)"
    )


def all_finite(features: Features, names: tuple[str, ...]) -> Features:
    """The clips in which these states, which the model reads, are known throughout."""
    columns = [features.state_names.index(name) for name in names]
    known = features.states[..., columns].isfinite().all(-1).all(-1)
    if known.all():
        return features
    assert features.actions is not None
    return Features(
        features.latents[known],
        features.states[known],
        {name: x[known] for name, x in features.labels.items()},
        tuple(key for key, there in zip(features.keys, known.tolist(), strict=True) if there),
        features.state_names,
        features.actions[known],
    )
