"""What imagination starts from and what it is told to do: a held-out clip, a file, or a world's reset.

    frames   f0 f1 | f2 f3 | f4 f5 | …         tubelet 2
    latents    z0  |   z1  |   z2  | …
             seen ─────────┘ imagined …        the frames after those seen are the truth, where it is known

After a reset there is one frame: it stands for a whole latent step, as in `Policy`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from jepa.agents.observations import stride_of
from jepa.config import UserError
from jepa.training.config import PretrainConfig
from jepa.world_model import LatentWorldModel
from jepa_data.events import event_number
from jepa_data.sampling import action_stride
from jepa_data.shards.index import ShardSet
from jepa_data.shards.store import open_store
from jepa_data.stream.loader import make_loader
from jepa_data.types import ClipBatch
from jepa_data.worlds import make_batch
from jepa_data.worlds.base import WorldBatch, episode_generator
from jepa_probes.decoding.replay import world_after
from jepa_probes.imagining.actions import FILES, key_actions, per_frame, read_actions
from jepa_probes.imagining.config import ImagineConfig
from jepa_probes.imagining.events import prompted, prompts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scene:
    """F frames at the model's rate and size, and the actions between them and after them.

    Attributes:
        video: those that are seen and, where it is known, what happened then.
        actions: of F-1 or more frames, as wide as the model's.
        events: columns of the model's events for each of the actions.
        states: proprioception at every seen frame, for models that read it; else None.
        seen: latent steps that the model sees.
        steps: latent steps imagined.
        is_true: whether the frames after those seen are there.
        start, acted: where frames and actions are from, in words.
    """

    video: UInt8[Tensor, "F 3 h w"]
    actions: Float32[np.ndarray, "P A"]
    events: Float32[np.ndarray, "P E"]
    states: Float[Tensor, "T X"] | None
    seen: int
    steps: int
    is_true: bool
    start: str
    acted: str


def make_scene(model: LatentWorldModel, training: PretrainConfig, config: ImagineConfig) -> Scene:
    """Raises UserError if what the config names is not there, or does not fit the model."""
    if model.spec.action_size is None:
        raise UserError("this model was trained without actions, so it imagines nothing; train dynamics with actions")
    if config.video is not None:
        return _from_file(model, config, config.video, _stride(training))
    if config.world is not None:
        return _from_world(model, config, config.world, _drawn_size(model, training))
    return _from_clip(model, training, config)


def _from_file(model: LatentWorldModel, config: ImagineConfig, source: str, stride: int) -> Scene:
    tubelet = model.spec.frames_per_step
    if (config.seen or 1) > 1:
        raise UserError("seen: a file has no actions between the frames seen; give seen=1")
    if model.spec.states:
        raise UserError(f"video: the model reads {', '.join(model.spec.states)}, which a file does not hold")
    video = model.read_video(Path(source), tubelet)[0]
    if len(video) == 1:
        video = video.expand(tubelet, -1, -1, -1)  # a still image stands for a step
    if len(video) < tubelet:
        raise UserError(f"{source}: has {len(video)} frame(s) at the model's rate; a latent step takes {tubelet}")
    width = model.spec.action_size or 0
    actions, acted = _given(config, width, stride, None)
    steps = _steps(config, len(actions) // tubelet)
    events = _after_seen(prompted(config, model, len(actions)), tubelet)
    return Scene(video, _after_seen(actions, tubelet), events, None, 1, steps, False, source, acted)


def _stride(training: PretrainConfig) -> int:
    """Frames of the recordings for one of the model."""
    data = training.data
    fps = ShardSet.open(open_store(data.sources[0].shards, data.remote)).manifest.fps
    return data.stride if fps is None else action_stride(fps, data.fps, data.stride)


def _drawn_size(model: LatentWorldModel, training: PretrainConfig) -> int:
    """Pixels at which worlds are drawn: as recorded, for images that are drawn small differ from images made small."""
    data = training.data
    recorded = ShardSet.open(open_store(data.sources[0].shards, data.remote)).manifest.image_size
    return recorded or model.preprocessing.image_size


def _from_world(model: LatentWorldModel, config: ImagineConfig, name: str, size: int) -> Scene:
    tubelet = model.spec.frames_per_step
    world = make_batch(name, np.array([config.episode]), image_size=size, seed=config.seed)
    stride = stride_of(world.fps, model)
    seen = config.seen or 1
    frames = (seen - 1 + config.horizon) * tubelet
    width = world.action_size * stride
    if width != model.spec.action_size:
        raise UserError(f"world: {name} has actions {world.action_size} wide; the model's are {model.spec.action_size}")
    actions, acted = _given(config, width, stride, (world, frames))
    steps = _steps(config, len(actions) // tubelet - (seen - 1))
    happening = prompts(config, (seen - 1 + steps) * tubelet)
    images, states = _played(model, world, actions[: (seen - 1 + steps) * tubelet], stride, happening)
    columns = _columns(model, world.state_names)
    video = torch.cat([images[:1].expand(tubelet - 1, -1, -1, -1), images])
    rows = torch.cat([states[:1].expand(tubelet - 1, -1), states])[:, columns] if columns else None
    start = f"{name}, episode {config.episode} of seed {config.seed}"
    events = _after_seen(prompted(config, model, len(actions)), tubelet)
    return Scene(video, _after_seen(actions, tubelet), events, rows, seen, steps, True, start, acted)


def _from_clip(model: LatentWorldModel, training: PretrainConfig, config: ImagineConfig) -> Scene:
    tubelet = model.spec.frames_per_step
    data = training.data
    shards = ShardSet.open(open_store(data.folder, data.remote))
    recordings = shards.split("test")
    if not len(recordings):
        raise UserError(f"{data.folder}: no held-out episodes to start from; give video=FILE or world=NAME")
    rate = data.fps or (shards.manifest.fps or 0) / data.stride
    number = config.clip
    if number >= len(recordings):
        raise UserError(f"clip: expected a number below {len(recordings)}, the held-out recordings, found {number}")
    longest = 1 + int(recordings.rows["seconds"][number] * rate + 1e-3)
    seen = config.seen or min(model.spec.history, max(1, longest // tubelet - 1))
    total = min(seen + config.horizon, longest // tubelet)
    if total <= seen:
        raise UserError(
            f"clip {number} has {longest} frames at the model's rate, too few to see {seen} steps and go on"
        )
    clip = _clip(training, recordings[number].key, total * tubelet)
    assert clip.actions is not None
    start = f"held-out clip {number} ({clip.keys[0]})"
    columns = _columns(model, shards.manifest.state_names)
    states = clip.states[0][:, columns] if columns and clip.states is not None else None
    video, recorded = clip.video[0].cpu(), clip.actions[0].cpu().numpy()
    happened = _recorded_events(model, clip)
    is_recorded = config.actions is None and config.keys is None
    if is_recorded and not config.events:
        return Scene(video, recorded, happened, states, seen, total - seen, True, start, "recorded")
    now = seen * tubelet - 1
    stride = _stride(training)
    first = round(float(clip.start_seconds[0]) * (shards.manifest.fps or rate)) + stride * now
    world = world_after(shards, clip.keys[0], first, _drawn_size(model, training))
    frames = config.horizon * tubelet
    acting = None if world is None else (world, frames)
    if is_recorded:
        actions, acted = recorded[now:], "recorded"
    else:
        actions, acted = _given(config, recorded.shape[1], stride, acting)
    steps = _steps(config, len(actions) // tubelet)
    video = video[: now + 1]
    if world is not None:
        happening = prompts(config, steps * tubelet)
        images, _ = _played(model, world, actions[: steps * tubelet], stride, happening)
        video = torch.cat([video, images[1:]])
    events = np.concatenate([happened[:now], prompted(config, model, len(actions))])
    actions = np.concatenate([recorded[:now], actions])
    return Scene(video, actions, events, states, seen, steps, world is not None, start, acted)


def _recorded_events(model: LatentWorldModel, clip: ClipBatch) -> Float32[np.ndarray, "P E"]:
    """Columns of the events of a clip; zeros where it has none, or the model knows none."""
    assert clip.actions is not None
    if clip.events is None or not model.spec.events:
        return np.zeros((clip.actions.shape[1], len(model.spec.events)), np.float32)
    return clip.events[0].cpu().numpy()


def _clip(training: PretrainConfig, key: str, frames: int) -> ClipBatch:
    """The first frames of a held-out recording. Raises UserError if it cannot be read."""
    changes = {"clip_frames": frames, "batch_size": 1, "start_seconds": 0.0, "short": "skip", "spatial": ()}
    loader = make_loader(training.data.model_copy(update=changes), "test", seed=0, shuffle=False)
    for batch in loader:
        if batch.keys[0] == key:
            return batch
    raise UserError(f"{training.data.folder}: the held-out recording {key} cannot be read; choose another clip")


def _given(
    config: ImagineConfig, width: int, stride: int, acting: tuple[WorldBatch, int] | None
) -> tuple[Float32[np.ndarray, "P A"], str]:
    """Actions for each frame of the model, and where they are from.

    Args:
        acting: a world in its present state, and for how many frames of the model its policies act.
    """
    if config.keys is not None:
        return np.tile(key_actions(config.keys, width // stride), stride), f"keys {config.keys}"
    if config.actions is not None and Path(config.actions).suffix.lower() in FILES:
        rows = read_actions(Path(config.actions).expanduser())
        return per_frame(rows, width, stride, f"actions: {config.actions}"), config.actions
    if acting is None:
        files = ", ".join(FILES)
        raise UserError(
            f"actions: expected a file ({files}), found {config.actions!r}; there is no world with policies"
        )
    world, frames = acting
    policy = config.actions or world.policies[0]
    if policy not in world.policies:
        raise UserError(
            f"actions: expected a file ({', '.join(FILES)}) or a policy of {world.name} ({', '.join(world.policies)}), "
            f"found {policy!r}"
        )
    actions = world.act(policy, [episode_generator(config.seed, config.episode)], 1 + frames * stride)[0]
    return actions.reshape(frames, width), f"policy {policy}"


def _steps(config: ImagineConfig, there: int) -> int:
    """Latent steps that are imagined. Raises UserError if the actions are too few for one."""
    if there < 1:
        raise UserError("actions: too few for one latent step; give more rows or letters, or a smaller seen")
    if there < config.horizon:
        logger.info(f"the actions last for {there} of {config.horizon} latent steps")
    return min(there, config.horizon)


def _played(
    model: LatentWorldModel,
    world: WorldBatch,
    actions: Float32[np.ndarray, "P E"],
    stride: int,
    events: Sequence[str | None],
) -> tuple[UInt8[Tensor, "F 3 h w"], Float[Tensor, "F X"]]:
    """Images and states from now on, one for each frame of the model: the present one, and one after each action."""
    images, states = [world.render()[0]], [world.states()[0]]
    for action, event in zip(actions, events, strict=True):
        if event is not None:
            world.trigger(np.array([event_number(event, world.events, world.name)]))
        for part in action.reshape(stride, -1):
            world.step(part[None])
        images.append(world.render()[0])
        states.append(world.states()[0])
    video = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return model.preprocessing.fitted(video[None])[0], torch.from_numpy(np.stack(states)).float()


def _after_seen(rows: Float32[np.ndarray, "P A"], tubelet: int) -> Float32[np.ndarray, "Q A"]:
    """With nothing done between the frames of the first step, which is one image or unknown."""
    return np.concatenate([np.zeros((tubelet - 1, rows.shape[1]), np.float32), rows])


def _columns(model: LatentWorldModel, names: Sequence[str]) -> list[int]:
    """Of the states that the model reads. Raises UserError if one is not there."""
    known = list(names)
    if missing := [name for name in model.spec.states if name not in known]:
        raise UserError(f"the model reads {missing[0]}, which is not among the states here")
    return [known.index(name) for name in model.spec.states]
