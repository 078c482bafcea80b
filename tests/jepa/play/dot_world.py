"""Two Rooms with a model that is exact where no wall is: its latent is the place of the dot, read off the red channel.

At a wall the true dot stops and the imagined one goes on: that is the drift that a test can foretell.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from jepa.config import from_dict
from jepa.play.config import PlayConfig
from jepa.play.ground import Ground, HeldOutClip, TrueWorld
from jepa.play.readout import fit_readout
from jepa.play.record import Recorder
from jepa.play.session import Latents, Session
from jepa.predictors.base import LatentState
from jepa.world_model import Deterministic, LatentSpec, LatentWorldModel, Preprocessing
from jepa_data.worlds import make_batch

SIDE = 64
STEP = 1.8 / 64  # widths that an action of 1 moves the dot by
PERIOD = 5  # world steps of a latent step


class DotEncoder(nn.Module):
    """[B, T, 3, h, w] -> [B, T, 1, 2]: the middle of the red, in widths of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, video: Tensor) -> Tensor:
        red = video[:, :, 0].clamp_min(0)
        at = (torch.arange(red.shape[-1]) + 0.5) / red.shape[-1]
        total = red.sum((-2, -1))
        return torch.stack([(red.sum(-2) * at).sum(-1) / total, (red.sum(-1) * at).sum(-1) / total], -1)[:, :, None]


class DotDynamics(nn.Module):
    """The dot moves as it is pushed; it knows no walls."""

    context = 1
    state_size = 0

    def initial_state(self, z: Tensor, actions: Tensor, states: Tensor | None = None) -> LatentState:
        return LatentState(z[:, -1])

    def step(
        self, state: LatentState, action: Tensor, noise: Tensor | None = None, temperature: float = 1.0
    ) -> tuple[LatentState, Deterministic]:
        z = state.z + STEP * action[:, : 2 * PERIOD].unflatten(-1, (PERIOD, 2)).sum(1)[:, None]
        if action.shape[-1] > 2 * PERIOD:  # the first event puts the dot into the middle
            happens = action[:, 2 * PERIOD, None, None]
            z = happens * 0.5 + (1 - happens) * z
        return LatentState(z), Deterministic(z)


def decode(z: Tensor) -> Tensor:
    """A white dot on black."""
    at = (torch.arange(SIDE) + 0.5) / SIDE
    x, y = (torch.exp(-(((at - z[..., 0, axis, None]) / 0.03) ** 2)) for axis in (0, 1))
    image = y[..., :, None] * x[..., None, :]
    return (255 * image[:, :, None].expand(-1, -1, 3, -1, -1)).to(torch.uint8)


def place(picture: np.ndarray) -> tuple[float, float]:
    """Where the dot of a picture is, in widths of it."""
    y, x = np.unravel_index(picture[..., 0].argmax(), picture.shape[:2])
    return (x + 0.5) / len(picture), (y + 0.5) / len(picture)


def make_model(events: tuple[str, ...] = ()) -> LatentWorldModel:
    """`events`: those that the dynamics know."""
    spec = LatentSpec(1, 2, step_seconds=0.5, frames_per_step=1, action_size=2 * PERIOD, events=events)
    pixels = Preprocessing(SIDE, 2.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), clip_frames=5)
    return LatentWorldModel(DotEncoder(), DotDynamics(), spec, pixels).eval()


def make_config(*overrides: str) -> PlayConfig:
    few = ["planner.samples=32", "planner.elites=4", "planner.iterations=2", "horizon=4", "readout_images=64"]
    return from_dict({}, PlayConfig, [*few, *overrides])


def make_ground(model: LatentWorldModel, *episodes: int) -> TrueWorld:
    numbers = np.array(episodes or (0,))
    return TrueWorld(lambda number: make_batch("two-rooms", numbers + number), model)


def make_session(folder: Path, *overrides: str, ground: Ground | None = None, events: tuple[str, ...] = ()) -> Session:
    """The dot in the first room of an episode, with places read off its latent."""
    model, config = make_model(events), make_config(*overrides)
    readout = fit_readout(make_ground(model, *range(config.readout_images)))
    ground = ground or make_ground(model)
    recorder = Recorder(folder, config.seed)
    latents = Latents(torch.full((1, 2), 0.5), unrelated=0.1, farthest=0.25)
    return Session("dot", model, decode, ground, config, readout=readout, latents=latents, recorder=recorder)


def make_clips(model: LatentWorldModel) -> HeldOutClip:
    """Two recorded clips in place of a world."""
    world = make_batch("two-rooms", np.arange(2))
    frames = torch.from_numpy(world.render()).permute(0, 3, 1, 2)
    return HeldOutClip(model, frames[:, None].expand(-1, 6, -1, -1, -1), torch.zeros(2, 5, 2 * PERIOD))
