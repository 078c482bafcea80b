"""The interface between models and planners, agents and probes: encode, Dynamics, rollout.

Shapes: B batch · T frames · S latent steps · N tokens per step · D latent width · A action width · K plans · H horizon.

    video  f0 f1 | f2 f3 | f4 f5          tubelet 2: two frames make one latent step
    latent   z0  |   z1  |   z2           the time of a latent is that of its last frame
    action    a0 a1 a2 a3 a4              a[t] takes frame t to t+1
    block      [a1 a2] [a3 a4]            take z0 to z1, z1 to z2
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from jepa.config import CHECKED, UserError
from jepa.config.fields import Count, Positive
from jepa.events import EventLayout, EventPrompt, append_events
from jepa_data.actions import ActionStats, assumed
from jepa_data.decode import Limits
from jepa_data.preprocessing import Preprocessing, VideoFile, as_video, open_video


@dataclass(frozen=True)
class LatentSpec:
    """Shape and timing of a latent: `tokens` x `width` numbers every `step_seconds`, from `frames_per_step` frames.

    `action_size`: width of one raw action; a latent step takes `frames_per_step` of them, concatenated.
    `actions`: range, mean and standard deviation of one action, or of several concatenated. If unknown (imported models
    and earlier versions), -1..1 is assumed, and `actions.origin` says so.
    `history`: maximum number of consecutive latents that the dynamics read in training.
    `states`: names of the proprioceptive states that the dynamics need at every step.
    `events`: names of the events that the dynamics take as a condition, see `jepa.events`. `action_size` and `actions`
    do not count them.
    """

    __pydantic_config__ = CHECKED

    tokens: Count
    width: Count
    step_seconds: Positive
    frames_per_step: Count
    action_size: Count | None = None
    history: Count = 1
    states: tuple[str, ...] = ()
    actions: ActionStats | None = None
    events: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.action_size is None:
            if self.events:
                raise ValueError(f"events: {', '.join(self.events)} belong to actions, and there are none")
            return
        if self.actions is None:
            object.__setattr__(self, "actions", assumed(self.action_size))  # frozen, but nobody has seen it yet
        assert self.actions is not None
        self.actions.resized(self.action_size)

    @property
    def block_size(self) -> int:
        """Width of the action that takes one latent step to the next."""
        if self.action_size is None:
            raise ValueError("this model was trained without actions")
        return self.action_size * self.frames_per_step

    @property
    def event_layout(self) -> EventLayout | None:
        """Where events stand in the action of a latent step that has them; None: there are no events."""
        if not self.events:
            return None
        assert self.action_size is not None
        return EventLayout(self.action_size, self.events, self.frames_per_step)


class NextLatent(Protocol):
    """A distribution over the next latent `[B, N, D]`."""

    def mean(self) -> Float[Tensor, "B N D"]: ...

    def sample(
        self, noise: Float[Tensor, "B N D"] | None = None, temperature: float = 1.0
    ) -> Float[Tensor, "B N D"]: ...

    def log_prob(self, z: Float[Tensor, "B N D"]) -> Float[Tensor, " B"] | None: ...


class State(Protocol):
    """The recurrent state of a dynamics model. It is opaque, and never changed in place."""

    def repeat(self, k: int) -> Self:
        """Repeat every row `k` times: batch B becomes B*k, with row b at b*k … b*k+k-1."""
        ...

    def gather(self, index: Int[Tensor, " M"]) -> Self: ...

    def detach(self) -> Self: ...

    def nbytes(self) -> int: ...


@runtime_checkable
class Dynamics(Protocol):
    """Predicts the next latent from a state and an action.

    Attributes:
        context: maximum number of latents that it reads, including the current one; None: all so far.
        state_size: width of the proprioceptive state that it reads at every step; 0: none.
    """

    context: int | None
    state_size: int

    def initial_state(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> State:
        """The state after S latents and the S-1 actions between them.

        Raises ValueError if `states` are given but not read, or needed but missing.
        """
        ...

    def step(
        self,
        state: State,
        action: Float[Tensor, "B A"],
        noise: Float[Tensor, "B N D"] | None = None,
        temperature: float = 1.0,
    ) -> tuple[State, NextLatent]:
        """One step ahead; `state` is unchanged.

        With `noise` the new state continues from `sample(noise, temperature)` of the next latent, else from its mean.
        """
        ...


@dataclass(frozen=True)
class Deterministic:
    """A point prediction as a NextLatent."""

    z: Float[Tensor, "B N D"]

    def mean(self) -> Float[Tensor, "B N D"]:
        return self.z

    def sample(self, noise: Float[Tensor, "B N D"] | None = None, temperature: float = 1.0) -> Float[Tensor, "B N D"]:
        return self.z

    def log_prob(self, z: Float[Tensor, "B N D"]) -> None:
        return None


def block_actions(actions: Float[Tensor, "B P A"], tubelet: int) -> Float[Tensor, "B Q E"]:
    """Group the P = T-1 actions of T frames into Q = S-1 blocks, one per latent transition, E = tubelet * A."""
    batch, count, width = actions.shape
    if (count + 1) % tubelet:
        raise ValueError(f"{count + 1} frames do not divide into tubelets of {tubelet}")
    steps = (count + 1) // tubelet
    return actions[:, tubelet - 1 : tubelet - 1 + (steps - 1) * tubelet].reshape(batch, steps - 1, tubelet * width)


def advance(
    dynamics: Dynamics,
    state: State,
    action: Float[Tensor, "B A"],
    noise: Float[Tensor, "B N D"] | None = None,
    temperature: float = 1.0,
) -> tuple[State, Float[Tensor, "B N D"]]:
    """The next state, and the next latent: sampled with `noise` at this temperature, or the mean without noise."""
    if noise is None:
        state, next_latent = dynamics.step(state, action)
        return state, next_latent.mean()
    state, next_latent = dynamics.step(state, action, noise, temperature)
    return state, next_latent.sample(noise, temperature)


def rollout(
    dynamics: Dynamics, state: State, actions: Float[Tensor, "B K H A"], noise: Float[Tensor, "B K H N D"] | None = None
) -> Float[Tensor, "B K H N D"]:
    """Imagine K plans of H steps from each of B states. Without `noise`, every step takes the mean."""
    batch, plans, horizon, _ = actions.shape
    imagine = getattr(dynamics, "imagine", None)  # a quicker way, which some dynamics know, to the same latents
    if imagine is not None and noise is None and not torch.is_grad_enabled():
        return imagine(state, actions)
    state = state.repeat(plans)
    latents = []
    for h in range(horizon):
        step_noise = None if noise is None else noise[:, :, h].flatten(0, 1)
        state, z = advance(dynamics, state, actions[:, :, h].flatten(0, 1), step_noise)
        latents.append(z)
    return torch.stack(latents, 1).unflatten(0, (batch, plans))


class LatentWorldModel(nn.Module):
    """A trained encoder and, if the method learns one, its dynamics. `jepa.load` returns it.

    Args:
        encoder: normalized video [B, T, C, h, w] -> [B, S, N, D].
        dynamics: predicts the next latent for an action; None if the method has none.
        spec: shape and timing of the latents.
        preprocessing: that of the training clips.
    """

    def __init__(
        self, encoder: nn.Module, dynamics: nn.Module | None, spec: LatentSpec, preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        assert dynamics is None or isinstance(dynamics, Dynamics)
        self.encoder = encoder
        self.dynamics: Dynamics | None = dynamics
        self.spec, self.preprocessing = spec, preprocessing

    def condition(self, actions: Float[Tensor, "*B T A"], events: EventPrompt = None) -> Float[Tensor, "*B T C"]:
        """Actions between frames, with the events that happen there: C = A + E, as `block_actions` takes them.

        Args:
            events: of each of the T transitions: names or None, `["close-door", None, …]`; numbers, 0 for none and k
                for `spec.events[k - 1]`, [T] or [*B, T]; or columns [*B, T, E]. None: no event.

        Raises:
            UserError: the model does not know an event, or there is not one entry for each action.
        """
        return append_events(actions, events, self.spec.events)

    @torch.no_grad()
    def encode(self, video: Any, *, chunk: int = 64) -> Float[Tensor, "B S N D"]:
        """Encode clips, one image, or one file (then B = 1).

        Args:
            video: RGB video [B, T, 3, h, w] at the model's frame rate, one clip [T, 3, h, w], or one image
                [3, h, w]: a tensor or a numpy array, channels first or last, uint8 0..255 or float 0..1, of any size
                (cropped and scaled as in training); a PIL image; a list of frames; the path or the bytes of an image or
                a video (resampled to the model's rate, and read in clips of the training length). Frames that do not
                fill the last tubelet are dropped.
            chunk: number of clips encoded at once.

        Raises:
            UserError: the video is shorter than a latent step, or of another type or shape.
            DecodeError: a file cannot be read.
        """
        if chunk < 1:
            raise UserError(f"chunk is the number of clips encoded at once, at least 1; found {chunk}")
        if isinstance(video, (str, Path, bytes)):
            with self.open_video(video) as file:
                parts = file.clips(self.preprocessing.clip_frames)
                return torch.cat([z.flatten(0, 1) for z in self.encode_file(file, parts, chunk)])[None]
        clips, is_image = as_video(video)
        if is_image:
            return self.encode_image(clips[:, 0])[:, None]
        parts = self._whole_steps(clips).split(chunk)
        return torch.cat([self.encode_clips(self.preprocessing.fitted(self._moved(part))) for part in parts])

    @torch.no_grad()
    def encode_clips(self, clips: Tensor) -> Float[Tensor, "B S N D"]:
        """Encode clips that are already cropped and scaled, from the loader or `VideoFile.clips`."""
        return self.encoder(self.prepare_clips(self._moved(clips)))

    def encode_file(
        self, file: VideoFile, clips: Iterator[Tensor], chunk: int = 64
    ) -> Iterator[Float[Tensor, "K S N D"]]:
        """Encode an open file in parts: the `clips` that `file.clips` returns.

        Raises:
            UserError: the file is shorter than a latent step.
            DecodeError: it cannot be read.
        """
        if file.is_image:
            yield from (self._encode_images(clip[:, 0])[:, None] for clip in clips)
            return
        if file.frames < self.spec.frames_per_step:
            raise self._too_short(file.frames)
        for clip in clips:
            if clip.shape[1] >= self.spec.frames_per_step:  # else: the rest of the file, which fills no tubelet
                yield torch.cat([self.encode_clips(part) for part in self._whole_steps(clip).split(chunk)])

    @torch.no_grad()
    def encode_image(self, image: Any) -> Float[Tensor, "B N D"]:
        """Encode images [B, 3, h, w], channels first or last, uint8 0..255 or float 0..1.

        Encoders with an embedding for images (V-JEPA 2.1) use it, in models without dynamics. Otherwise each image is
        repeated to fill a latent step, as in V-JEPA 2-AC.
        """
        images, _ = as_video(image)
        return self._encode_images(self.preprocessing.fitted(self._moved(images))[0])

    def prepare(self, video: Any) -> Float[Tensor, "B T C H W"]:
        """Crop, scale and normalize video as in training, for the encoder, on the device of `video`."""
        return self.prepare_clips(self.preprocessing.fitted(as_video(video)[0]))

    def prepare_clips(self, clips: Tensor) -> Float[Tensor, "B T C H W"]:
        """Normalize clips [B, T, C, H, W] that are already cropped and scaled, uint8 0..255."""
        if clips.dtype != torch.uint8:
            raise UserError(f"expected clips of the loader, uint8 0..255, found {clips.dtype}; use encode or prepare")
        return self.preprocessing.normalized(clips, next(self.encoder.parameters()).dtype)

    @contextmanager
    def open_video(self, source: bytes | Path | str, limits: Limits | None = None) -> Iterator[VideoFile]:
        """Open a video or image file, to read it at the model's rate and size. Raises DecodeError."""
        path = Path(source).expanduser() if isinstance(source, str) else source
        with open_video(path, self.preprocessing, limits) as file:
            yield file

    def read_video(self, source: bytes | Path | str, frames: int | None = None) -> UInt8[Tensor, "1 T C h w"]:
        """Read a video file, or its first `frames`, at the model's rate and size. Raises DecodeError."""
        with self.open_video(source) as file:
            return torch.cat([clip.flatten(0, 1) for clip in file.clips(limit=frames)])[None]

    def _encode_images(self, image: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        frames = self.spec.frames_per_step
        if getattr(self.encoder, "images", False) and self.dynamics is None:
            frames = 1
        return self.encode_clips(image[:, None].expand(-1, frames, -1, -1, -1))[:, 0]

    def _moved(self, video: Tensor) -> Tensor:
        return video.to(next(self.encoder.parameters()).device)

    def _whole_steps(self, clips: UInt8[Tensor, "B T C h w"]) -> UInt8[Tensor, "B W C h w"]:
        whole = clips.shape[1] - clips.shape[1] % self.spec.frames_per_step
        if not whole:
            raise self._too_short(clips.shape[1])
        return clips[:, :whole]

    def _too_short(self, frames: int) -> UserError:
        return UserError(
            f"the video has {frames} frame(s); one latent step takes {self.spec.frames_per_step}. "
            "Give more frames, or a single image [3, h, w], which is encoded as a still"
        )
