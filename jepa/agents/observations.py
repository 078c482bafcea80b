"""Conversions of observations, images [h, w, 3] or [B, h, w, 3], states and actions of policies."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray
from torch import Tensor

from jepa.config import UserError
from jepa.world_model import LatentWorldModel
from jepa_data.preprocessing import as_video
from jepa_data.worlds.base import WorldBatch


class LatestFrames:
    """A buffer of the frames of one latent step: every `stride`-th observation is a frame.

    Attributes:
        period: observations per latent step.
    """

    def __init__(self, frames: int, stride: int) -> None:
        self.frames = frames
        self.stride = stride
        self.period = frames * stride
        self._observed = 0
        self._kept: list[Tensor] = []

    def add(self, images: UInt8[Tensor, "B 3 h w"]) -> bool:
        """Add an observation, and return whether a latent step begins with it."""
        begins = self._observed % self.period == 0
        if self._observed % self.stride == 0:
            self._kept = [*self._kept, images][-self.frames :]
        self._observed += 1
        return begins

    def clip(self) -> UInt8[Tensor, "B T 3 h w"]:
        """The last frames; at the start of an episode, the first frame is repeated."""
        return torch.stack([self._kept[0]] * (self.frames - len(self._kept)) + self._kept, 1)


def stride_of(fps: float, model: LatentWorldModel) -> int:
    """Observations per frame of the model."""
    stride = fps / model.preprocessing.fps
    size = model.spec.action_size
    if stride < 1 or abs(stride - round(stride)) > 1e-6 or size is None or size % round(stride):
        raise UserError(
            f"the model was trained at {model.preprocessing.fps:g} frames a second with actions {size} wide: expected "
            f"observations at a multiple of that rate which divides the actions, found {fps:g} a second"
        )
    return round(stride)


def as_images(array: Any) -> UInt8[Tensor, "B 3 h w"]:
    """Observations as a batch of images; see `as_video` for what is accepted."""
    if not isinstance(array, np.ndarray) or array.ndim not in (3, 4) or array.shape[-1] != 3:
        given = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise UserError(f"expected RGB images as a numpy array [h, w, 3] or [B, h, w, 3], found {given}")
    video, _ = as_video(array)
    return video[0]


def as_action(actions: Float[Tensor, "B A"], observation: np.ndarray) -> Float32[np.ndarray, "*B A"]:
    """Remove the batch dimension if the observation was a single image."""
    return actions.numpy().reshape(*observation.shape[:-3], -1)


def check_shape(observation: Any, goal_shape: tuple[int, ...] | None) -> None:
    """Raises UserError if observation and goal differ in shape."""
    if goal_shape not in (None, observation.shape):
        raise UserError(f"the goal has shape {goal_shape}, the observation {observation.shape}: give both alike")


def check_actions(model: LatentWorldModel, world: WorldBatch) -> None:
    """Raises UserError unless the model's actions are those of the world, at the model's rate."""
    stride = stride_of(world.fps, model)
    if model.spec.action_size != stride * world.action_size:
        raise UserError(
            f"the model's actions are {model.spec.action_size} wide; {world.name} takes {world.action_size} numbers "
            f"{stride} time(s) for each frame of the model, so expected {stride * world.action_size}"
        )


def proprioception(model: LatentWorldModel, world: WorldBatch) -> NDArray[np.float32] | None:
    """Proprioception [B, X] that the model needs, from the world's true state; None if it needs none.

    Raises:
        UserError: the world has no such state.
    """
    if not model.spec.states:
        return None
    names = list(world.state_names)
    if missing := [name for name in model.spec.states if name not in names]:
        known = ", ".join(names) or "none"
        raise UserError(f"the model reads {missing[0]!r}, which is no state of {world.name}; there are: {known}")
    return world.states()[:, [names.index(name) for name in model.spec.states]]
