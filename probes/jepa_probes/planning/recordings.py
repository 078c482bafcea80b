"""What a run's recordings are to those that learn to act from them: latents, the same as goals, and actions."""

import numpy as np
from torch import Tensor

from jepa.agents.controller import ActionSpace, Bounds
from jepa.agents.policy import stride_of
from jepa.config import UserError
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_data.stream.loader import make_loader
from jepa_data.worlds import make_batch
from jepa_data.worlds.gym import GymBatch
from jepa_probes.planning.config import TasksConfig
from jepa_probes.probing.features import Features, extract_all

CACHE_MIB = 1024


def recorded(
    model: LatentWorldModel, data: StreamConfig, seed: int, clips: int | None, clips_per_video: int
) -> tuple[Features, Tensor]:
    """Latents and actions of the training episodes; and the latents [E, S, N, D] of the same moments as stills.

    Args:
        clips: stop after so many; None: all.

    Raises:
        UserError: the data's actions have another width than the model's.
    """
    changes = {"batch_size": 64, "clips_per_video": clips_per_video, "cache_mib": CACHE_MIB}
    loader = make_loader(data.model_copy(update=changes), "train", seed=seed, shuffle=False)
    if loader.action_size != model.spec.action_size:
        raise UserError(
            f"the model's actions are {model.spec.action_size} wide, those of its data {loader.action_size}"
        )
    frames = model.spec.frames_per_step

    def still(video: Tensor) -> Tensor:
        pictures = video[:, frames - 1 :: frames].flatten(0, 1)
        repeated = pictures[:, None].expand(-1, frames, -1, -1, -1)
        return model.encode_clips(repeated)[:, 0].unflatten(0, (len(video), -1))

    encodes = {"seen": model.encode_clips} | ({"still": still} if frames > 1 else {})
    features = extract_all(encodes, loader, frames, loader.shards.manifest.state_names, clips=clips)
    return features["seen"], features["still" if frames > 1 else "seen"].latents


def action_space(
    config: TasksConfig, model: LatentWorldModel, bounds: Bounds | None = None, action_repeat: int | None = None
) -> ActionSpace:
    """What a controller of the config's world decides.

    Args:
        bounds: None: a choice where the world's actions are discrete, else a box.
        action_repeat: None: as the config says.
    """
    world = make_batch(str(config.world), np.arange(1), image_size=model.preprocessing.image_size)
    if bounds is None:
        bounds = "choice" if isinstance(world, GymBatch) and world.discrete else "box"
    stride, wide = stride_of(world.fps, model), model.spec.action_size
    assert wide is not None
    frames = model.spec.frames_per_step * stride
    return ActionSpace(wide // stride, frames, action_repeat or config.action_repeat, bounds, model.spec.actions)
