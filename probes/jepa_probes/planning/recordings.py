"""What a run's recordings are to those that learn to act from them: latents, the same as goals, and actions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from jepa.agents.controller import ActionSpace, Actor, Bounds
from jepa.agents.inverse import fit_inverse
from jepa.agents.policy import stride_of
from jepa.agents.proposals import RecordedSegments
from jepa.config import UserError
from jepa.events import check_same_events
from jepa.world_model import LatentWorldModel, block_actions
from jepa_data.config import StreamConfig
from jepa_data.stream.loader import ClipLoader, make_loader
from jepa_data.worlds import make_batch
from jepa_data.worlds.base import GoalBatch
from jepa_data.worlds.gym import GymBatch
from jepa_probes.diagnosis.quantities import StateCode
from jepa_probes.planning.config import InverseConfig, ProposalConfig
from jepa_probes.probing.features import Encode, Features, extract_all

CACHE_MIB = 1024


def recorded(
    model: LatentWorldModel, data: StreamConfig, seed: int, clips: int | None, clips_per_video: int
) -> tuple[Features, Tensor]:
    """Latents and actions of the training episodes; and the latents [E, S, N, D] of the same frames as single images.

    Args:
        clips: stop after so many; None: all.

    Raises:
        UserError: the data's actions have another width than the model's.
    """
    loader = clip_loader(model, data, "train", seed, {"clips_per_video": clips_per_video})
    frames = model.spec.frames_per_step
    encodes: dict[str, Encode] = {"seen": model.encode_clips}
    if frames > 1:
        encodes["still"] = partial(encode_goals, model)
    features = extract_all(encodes, loader, frames, loader.shards.manifest.state_names, clips=clips)
    return features["seen"], features.get("still", features["seen"]).latents


def clip_loader(
    model: LatentWorldModel, data: StreamConfig, split: str, seed: int, changes: dict[str, Any]
) -> ClipLoader:
    """The clips of a split in order, with some settings changed. Raises UserError for other actions or events."""
    settings = {"batch_size": 64, "cache_mib": CACHE_MIB} | changes
    loader = make_loader(data.model_copy(update=settings), split, seed=seed, shuffle=False)
    if loader.action_size != model.spec.action_size:
        raise UserError(
            f"the model's actions are {model.spec.action_size} wide, those of its data {loader.action_size}"
        )
    check_same_events(model.spec.events, loader.events, "the model", loader.shards.url)
    return loader


def encode_goals(model: LatentWorldModel, video: Tensor) -> Tensor:
    """Each latent step of clips as a goal image shows it: its last frame, standing still."""
    frames = model.spec.frames_per_step
    images = video[:, frames - 1 :: frames].flatten(0, 1)
    repeated = images[:, None].expand(-1, frames, -1, -1, -1)
    return model.encode_clips(repeated)[:, 0].unflatten(0, (len(video), -1))


def action_space(
    model: LatentWorldModel, world_name: str, action_repeat: int = 1, bounds: Bounds | None = None
) -> ActionSpace:
    """What a controller of a world decides.

    Args:
        bounds: None: a choice where the world's actions are discrete, else a box.
    """
    world = make_batch(world_name, np.arange(1), image_size=model.preprocessing.image_size)
    if bounds is None:
        bounds = "choice" if isinstance(world, GymBatch) and world.discrete else "box"
    stride = stride_of(world.fps, model)
    assert model.spec.action_size is not None
    frames = model.spec.frames_per_step * stride
    return ActionSpace(model.spec.action_size // stride, frames, action_repeat, bounds, model.spec.actions)


def inverse_dynamics(
    model: LatentWorldModel, data: StreamConfig, settings: InverseConfig, space: ActionSpace, seed: int
) -> Actor:
    """Inverse dynamics, fitted to the recordings."""
    clips = data.model_copy(update={"clip_frames": settings.clip_frames or data.clip_frames})
    features, goals = recorded(model, clips, seed, settings.clips, settings.clips_per_video)
    return fit_inverse(features.latents, goals, recorded_blocks(model, features), space, settings, seed)


@dataclass(frozen=True)
class TrueSegments:
    """Recorded segments by their true states: what a goal says of them, standardized, and angles as sine and cosine."""

    code: StateCode
    segments: RecordedSegments

    @classmethod
    def of(cls, recorded: Features, blocks: Float[Tensor, "E Q A"], goal_names: Sequence[str]) -> "TrueSegments | None":
        """None where a goal's quantities are not recorded states."""
        if not set(goal_names) <= set(recorded.state_names):
            return None
        states = recorded.states[..., [recorded.state_names.index(name) for name in goal_names]]
        code = StateCode.fit(goal_names, states)
        latents = code.encode(states)[:, :, None]
        return cls(code, RecordedSegments(latents, latents, blocks))

    def propose(
        self, world: GoalBatch, goal: Float[np.ndarray, "B G"], horizon: int, count: int
    ) -> Float[Tensor, "B P H E"]:
        """See `RecordedSegments.propose`."""
        now, then = (self.code.encode(torch.from_numpy(x).float())[:, None] for x in (world.goal_state(), goal))
        return self.segments.propose(now, then, horizon, count)


@dataclass(frozen=True)
class Segments:
    """Recordings as starts of plans: by their latents, and by their true states where these are recorded."""

    latent: RecordedSegments
    true: TrueSegments | None


def recorded_segments(
    model: LatentWorldModel, data: StreamConfig, settings: ProposalConfig, goal_names: Sequence[str], seed: int
) -> Segments:
    """Those of the run's recordings."""
    clips = data.model_copy(update={"clip_frames": settings.clip_frames or data.clip_frames})
    features, goals = recorded(model, clips, seed, settings.clips, settings.clips_per_video)
    blocks = recorded_blocks(model, features)
    return Segments(RecordedSegments(features.latents, goals, blocks), TrueSegments.of(features, blocks, goal_names))


def recorded_blocks(model: LatentWorldModel, features: Features) -> Float[Tensor, "E Q A"]:
    """The actions that led from each latent to the next."""
    assert features.actions is not None
    return block_actions(features.actions, model.spec.frames_per_step)
