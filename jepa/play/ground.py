"""Where an imagined rollout starts, and what is true beside it: a simulated world, or a held-out clip.

world step   0  1  2  3  4  5  6      tubelet 2, stride 1: a latent step is two world steps
moments      z0    z1    z2    z3     z0 reads the first frame twice
block           a0 a1 a2 a3 a4 a5     [a0 a1] takes z0 to z1
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray
from torch import Tensor

from jepa.agents.observations import check_actions, proprioception, stride_of
from jepa.world_model import LatentWorldModel, block_actions
from jepa_data.events import event_columns
from jepa_data.worlds.base import WorldBatch

OnFrame = Callable[[NDArray[np.floating], int, NDArray[np.uint8], NDArray[np.floating]], None]


@dataclass(frozen=True)
class Past:
    """The last S true latents of E episodes, the blocks of actions between them, and proprioception."""

    z: Float[Tensor, "E S N D"]
    blocks: Float[Tensor, "E S-1 B"]
    states: Float[Tensor, "E S X"] | None


class Ground(ABC):
    """Attributes: has_truth, whether `step` takes the truth along with what is imagined; period, A: actions of a
    latent step, and their width; fps, of the true frames."""

    has_truth: bool
    period: int
    action_size: int
    fps: float

    @abstractmethod
    def reset(self) -> None:
        """Start the next episode."""

    @abstractmethod
    def step(self, actions: Float32[np.ndarray, "E P A"], event: int = 0) -> None:
        """One latent step. `event`: the number of one that happens right before it; 0: none."""

    @abstractmethod
    def past(self) -> Past:
        """What the dynamics start from."""

    @abstractmethod
    def picture(self) -> UInt8[np.ndarray, "h w 3"]:
        """The last true frame, of the first episode."""

    def latent(self) -> Float[Tensor, "E N D"]:
        """Of the last true frames."""
        return self.past().z[:, -1]


@dataclass
class _Moment:
    """A latent step of the world. `block`: the actions that led to it; None for the first. `z`: once it is needed."""

    frames: UInt8[np.ndarray, "E F h w 3"]
    block: Tensor | None
    state: NDArray[np.floating] | None
    z: Tensor | None = None


def as_block(
    model: LatentWorldModel, actions: Float32[np.ndarray, "E P A"], event: str | None = None
) -> Float[Tensor, "E B"]:
    """The actions of a latent step as the dynamics take them, with an event that happens before it if they know it."""
    frames = model.spec.frames_per_step
    each = torch.from_numpy(actions).reshape(len(actions), frames, -1)
    if names := model.spec.events:
        numbers = np.zeros(frames, np.int64)
        numbers[0] = names.index(event) + 1 if event in names else 0
        each = model.condition(each, torch.from_numpy(event_columns(numbers, len(names))))
    return each.flatten(1)


class TrueWorld(Ground):
    """E episodes of a simulated world, at the model's rate.

    Args:
        start: makes the episodes of a number, 0, 1, 2, ….

    Attributes:
        world: as it is now.
        on_frame: called after every step of the world with action [A], number of an event, image [h, w, 3] and states
            [X] of the first episode.

    Raises:
        UserError: the model's actions are not those of the world, or it reads a state that the world does not have.
    """

    has_truth = True

    def __init__(self, start: Callable[[int], WorldBatch], model: LatentWorldModel) -> None:
        self._start, self._model = start, model
        self.world = start(0)
        check_actions(model, self.world)
        self.stride = stride_of(self.world.fps, model)
        self.period = self.stride * model.spec.frames_per_step
        self.action_size = self.world.action_size
        self.fps = self.world.fps
        self.on_frame: OnFrame | None = None
        self.episode = -1
        self.reset()

    def reset(self) -> None:
        self.episode += 1
        self.world = self._start(self.episode)
        self._image = self.world.render()
        self._frames = [self._image] * self._model.spec.frames_per_step
        self._moments = [self._moment(None)]

    @property
    def has_ended(self) -> bool:
        """Whether the first episode is over."""
        return bool(self.world.terminated()[0])

    def step(self, actions: Float32[np.ndarray, "E P A"], event: int = 0) -> None:
        for t in range(self.period):
            happens = 0 if t else event
            if happens:
                self.world.trigger(np.full(len(self.world), happens))
            self.world.step(actions[:, t])
            is_read = (t + 1) % self.stride == 0
            if is_read or self.on_frame is not None:
                self._image = self.world.render()
            if is_read:
                self._frames = [*self._frames[1:], self._image]
            if self.on_frame is not None:
                self.on_frame(actions[0, t], happens, self._image[0], self.world.states()[0])
        moment = self._moment(as_block(self._model, actions, self.world.events[event - 1] if event else None))
        self._moments = [*self._moments, moment][-self._model.spec.history :]

    def past(self) -> Past:
        latents = [self._encoded(moment) for moment in self._moments]
        blocks = [m.block.to(latents[0]) for m in self._moments[1:] if m.block is not None]
        z = torch.stack(latents, 1)
        empty = z.new_zeros(len(z), 0, self.period * self.action_size)
        states = [torch.from_numpy(m.state).to(z) for m in self._moments if m.state is not None]
        return Past(z, torch.stack(blocks, 1) if blocks else empty, torch.stack(states, 1) if states else None)

    def latent(self) -> Float[Tensor, "E N D"]:
        return self._encoded(self._moments[-1])

    def picture(self) -> UInt8[np.ndarray, "h w 3"]:
        return self._image[0]

    def _moment(self, block: Tensor | None) -> _Moment:
        return _Moment(np.stack(self._frames, 1), block, proprioception(self._model, self.world))

    def _encoded(self, moment: _Moment) -> Tensor:
        if moment.z is None:
            moment.z = self._model.encode(moment.frames)[:, 0]
        return moment.z


class HeldOutClip(Ground):
    """A clip of recorded video. What is imagined starts at its beginning; nothing true goes with other actions.

    Args:
        video: M clips at the model's size, uint8.
        actions: between their frames, in the units of the data.
    """

    has_truth = False

    def __init__(
        self,
        model: LatentWorldModel,
        video: UInt8[Tensor, "M T C h w"],
        actions: Float[Tensor, "M T-1 A"],
        states: Float[Tensor, "M T X"] | None = None,
    ) -> None:
        self._model, self._video, self._actions, self._states = model, video, actions, states
        self.period = model.spec.frames_per_step
        self.action_size = actions.shape[-1]
        self.fps = model.preprocessing.fps
        self._clip = -1
        self.reset()

    def reset(self) -> None:
        self._clip = (self._clip + 1) % len(self._video)

    def step(self, actions: Float32[np.ndarray, "E P A"], event: int = 0) -> None:
        """Nothing is known of what would happen."""

    def past(self) -> Past:
        frames = self._seen()
        here = slice(self._clip, self._clip + 1)
        z = self._model.encode_clips(self._video[here, :frames])
        blocks = block_actions(self._actions[here, : frames - 1], self.period).to(z)
        states = self._states
        if states is not None:
            states = states[here, self.period - 1 : frames : self.period].to(z)
        return Past(z, blocks, states)

    def picture(self) -> UInt8[np.ndarray, "h w 3"]:
        return self._video[self._clip, self._seen() - 1].permute(1, 2, 0).numpy()

    def last_frame(self) -> UInt8[np.ndarray, "h w 3"]:
        """Of the clip: where it led to when it was recorded."""
        return self._video[self._clip, -1].permute(1, 2, 0).numpy()

    def _seen(self) -> int:
        """Frames that the dynamics start from."""
        steps = self._video.shape[1] // self.period
        return min(self._model.spec.history, steps) * self.period
