"""The one contract that planners, agents and probes see: encode, Dynamics, rollout.

Shapes: B batch · T frames · S latent steps · N tokens per step · D latent width · A action width · K plans · H horizon.

    video  f0 f1 | f2 f3 | f4 f5          tubelet 2: two frames make one latent step
    latent   z0  |   z1  |   z2           a latent's time is its last frame
    action    a0 a1 a2 a3 a4              a[t] takes frame t to t+1
    block      [a1 a2] [a3 a4]            what takes z0 to z1, z1 to z2
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.config import UserError
from jepa_data.actions import ActionStats, assumed
from jepa_data.decode import get_backend
from jepa_data.sampling import clip_indices
from jepa_data.transforms import normalize


@dataclass(frozen=True)
class LatentSpec:
    """What a latent is: `tokens` x `width` numbers every `step_seconds`, `frames_per_step` frames each.

    `action_size` is the width of one raw action; a latent step takes `frames_per_step` of them, side by side.
    `actions`: range, mean and deviation of one action, or of several side by side; where nobody said (models of other
    origin, or of earlier versions) -1..1 is assumed, and `actions.origin` tells so.
    `history`: how many latents in a row the dynamics read at most when they were trained.
    `states`: what they have to be told of the body at every step, by the names of the recording.
    """

    tokens: int
    width: int
    step_seconds: float
    frames_per_step: int
    action_size: int | None = None
    history: int = 1
    states: tuple[str, ...] = ()
    actions: ActionStats | None = None

    def __post_init__(self) -> None:
        if self.action_size is None:
            return
        if self.actions is None:
            object.__setattr__(self, "actions", assumed(self.action_size))  # frozen, but nobody has seen it yet
        assert self.actions is not None
        self.actions.resized(self.action_size)

    @property
    def block_action_stats(self) -> ActionStats:
        """Of what takes one latent step to the next."""
        if self.actions is None:
            raise ValueError("this model was trained without actions")
        return self.actions.resized(self.block_size)

    @property
    def block_size(self) -> int:
        """Width of the action that takes one latent step to the next."""
        if self.action_size is None:
            raise ValueError("this model was trained without actions")
        return self.action_size * self.frames_per_step


class NextLatent(Protocol):
    """A distribution over the next latent `[B, N, D]`."""

    def mean(self) -> Float[Tensor, "B N D"]: ...

    def sample(
        self, noise: Float[Tensor, "B N D"] | None = None, temperature: float = 1.0
    ) -> Float[Tensor, "B N D"]: ...

    def log_prob(self, z: Float[Tensor, "B N D"]) -> Float[Tensor, " B"] | None: ...


class State(Protocol):
    """What a dynamics model carries from step to step; opaque, and never changed in place."""

    def repeat(self, k: int) -> Self:
        """Every row `k` times in a row: batch B becomes B*k, row b at b*k … b*k+k-1."""
        ...

    def gather(self, index: Int[Tensor, " M"]) -> Self: ...

    def detach(self) -> Self: ...

    def nbytes(self) -> int: ...


@runtime_checkable
class Dynamics(Protocol):
    """Predicts the next latent from a state and an action."""

    def init(self, z: Float[Tensor, "B S N D"], actions: Float[Tensor, "B S-1 A"]) -> State:
        """State after having seen S latents and the S-1 actions between them."""
        ...

    def step(
        self, state: State, action: Float[Tensor, "B A"], noise: Float[Tensor, "B N D"] | None = None
    ) -> tuple[State, NextLatent]:
        """One step ahead; `state` is left as it was. With `noise` a sample is drawn from it, else the mean is used."""
        ...


@runtime_checkable
class SensingDynamics(Dynamics, Protocol):
    """Dynamics that also read, at every step, the `state_size` numbers that the body knows of itself; 0: none."""

    state_size: int

    def init(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
    ) -> State: ...


def begin(
    dynamics: Dynamics,
    z: Float[Tensor, "B S N D"],
    actions: Float[Tensor, "B S-1 A"],
    states: Float[Tensor, "B S X"] | None = None,
) -> State:
    """`dynamics.init`, with states for those that read them. Raises ValueError if there are to be none, or others."""
    if states is None:
        return dynamics.init(z, actions)
    if not isinstance(dynamics, SensingDynamics):
        raise ValueError(f"{type(dynamics).__name__} reads no states, found {states.shape[-1]} at every step")
    return dynamics.init(z, actions, states)


class WorldModel(Protocol):
    """Encoder and dynamics in one latent space."""

    spec: LatentSpec
    dynamics: Dynamics | None

    def encode(self, video: Tensor) -> Float[Tensor, "B S N D"]: ...


@dataclass(frozen=True)
class Point:
    """A point prediction as a NextLatent."""

    z: Float[Tensor, "B N D"]

    def mean(self) -> Float[Tensor, "B N D"]:
        return self.z

    def sample(self, noise: Float[Tensor, "B N D"] | None = None, temperature: float = 1.0) -> Float[Tensor, "B N D"]:
        return self.z

    def log_prob(self, z: Float[Tensor, "B N D"]) -> None:
        return None


def block_actions(actions: Float[Tensor, "B P A"], tubelet: int) -> Float[Tensor, "B Q E"]:
    """The P = T-1 actions of T frames as Q = S-1 blocks, one per latent transition (figure above), E = tubelet * A."""
    batch, count, width = actions.shape
    if (count + 1) % tubelet:
        raise ValueError(f"{count + 1} frames do not divide into tubelets of {tubelet}")
    steps = (count + 1) // tubelet
    return actions[:, tubelet - 1 : tubelet - 1 + (steps - 1) * tubelet].reshape(batch, steps - 1, tubelet * width)


def rollout(
    dynamics: Dynamics,
    state: State,
    actions: Float[Tensor, "B K H A"],
    noise: Float[Tensor, "B K H N D"] | None = None,
) -> Float[Tensor, "B K H N D"]:
    """Imagine K plans of H steps from each of B states. `noise` may be shared by candidates; None gives the means."""
    batch, plans, horizon, _ = actions.shape
    state = state.repeat(plans)
    latents = []
    for h in range(horizon):
        step_noise = None if noise is None else noise[:, :, h].flatten(0, 1)
        state, following = dynamics.step(state, actions[:, :, h].flatten(0, 1), step_noise)
        latents.append(following.mean() if step_noise is None else following.sample(step_noise))
    return torch.stack(latents, 1).unflatten(0, (batch, plans))


@dataclass(frozen=True)
class Preprocessing:
    """What a model was trained on: square pictures, their rate, and the mean and std that normalise pixels in 0..1."""

    image_size: int
    fps: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class LatentWorldModel(nn.Module):
    """A trained encoder and, where the method learns one, its dynamics: what `jepa.load` returns.

    Args:
        encoder: normalised video [B, T, C, h, w] -> [B, S, N, D].
        dynamics: predicts the next latent under an action; None if the method has none.
        spec: what a latent is.
        preprocessing: what the encoder was trained on.
    """

    def __init__(
        self, encoder: nn.Module, dynamics: nn.Module | None, spec: LatentSpec, preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        assert dynamics is None or isinstance(dynamics, Dynamics)
        self.encoder = encoder
        self.dynamics: Dynamics | None = dynamics
        self.spec, self.preprocessing = spec, preprocessing

    @torch.no_grad()
    def encode(self, video: UInt8[Tensor, "B T C h w"] | str | Path, *, chunk: int = 64) -> Float[Tensor, "B S N D"]:
        """Latents of clips, or of one whole video file (then B = 1; the last frames that fill no tubelet are left out).

        Args:
            video: RGB 0..255 of any size (resized to the model's), or the path of a video file (resampled to its rate).
            chunk: clips encoded at once.
        """
        clips = self.read_video(Path(video)) if isinstance(video, (str, Path)) else video
        whole = clips.shape[1] - clips.shape[1] % self.spec.frames_per_step
        if not whole:
            raise UserError(
                f"the video has {clips.shape[1]} frame(s); one latent step takes {self.spec.frames_per_step}. "
                "Give more frames, or repeat a still picture."
            )
        device = next(self.encoder.parameters()).device
        return torch.cat([self.encoder(self.prepare(part.to(device))) for part in clips[:, :whole].split(chunk)])

    def encode_still(self, picture: UInt8[Tensor, "B C h w"]) -> Float[Tensor, "B N D"]:
        """Latents of still pictures: each is repeated to fill a step, as V-JEPA 2-AC does for goals."""
        return self.encode(picture[:, None].expand(-1, self.spec.frames_per_step, -1, -1, -1))[:, 0]

    def prepare(self, video: UInt8[Tensor, "B T C h w"]) -> Float[Tensor, "B T C H W"]:
        """Resize as decoders do (bicubic) and normalise, on the device where `video` is."""
        size, p = self.preprocessing.image_size, self.preprocessing
        if video.shape[-2:] != (size, size):
            pictures = F.interpolate(video.flatten(0, 1).float(), (size, size), mode="bicubic", antialias=True)
            video = pictures.round().clamp(0, 255).to(torch.uint8).unflatten(0, video.shape[:2])
        return normalize(video, p.mean, p.std)

    def read_video(self, source: bytes | Path) -> UInt8[Tensor, "1 T C h w"]:
        """A whole video file at the model's frame rate. Raises DecodeError."""
        backend, rate = get_backend("pyav"), self.preprocessing.fps
        index = backend.probe(source)
        # As many frames as fit: 1.0 s of video at 10 fps, its last frame shown at 0.9 s, gives 10.
        # Times are rounded to ticks, so the last frame may seem to come a little early.
        count = int((index.seconds[-1] + 4e-4) * rate) + 1
        with backend.open(source, index) as reader:
            frames = reader.frames(clip_indices(index.seconds, 0, count, rate))
        return torch.from_numpy(frames).permute(0, 3, 1, 2)[None]
