"""A camera over an endless mosaic of colored cells: it pans, zooms or rolls, and nothing else moves.

    motion   0 right   1 down   2 left   3 up   4 zoom in   5 zoom out   6 roll to the right   7 roll to the left

The label `motion` is what the camera does throughout the episode, at a speed of the episode's own. It cannot be read
off a single frame, nor linearly off several: colors and cells are drawn without regard to it, so every pixel, and every
difference of two, is the same on average whatever the motion. Only products of pixels of different frames tell it.

Ground truth: the velocity of the pan, and the rates of zoom and roll. Where the camera is does not show, and is not
recorded. Units: image widths at zoom 1, seconds, radians; y points downwards, and a roll to the right is clockwise.
An action pushes the pan; the policy `coast` leaves the camera alone.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from jepa_data.worlds.base import WorldBatch
from jepa_data.worlds.geometry import rotated, unit_vector
from jepa_data.worlds.render import Mosaic, make_mosaic, paint_mosaic

FRAME_SECONDS = 0.1
CELLS = 12  # over the width of the image at zoom 1
REPEATS = 40  # cells after which the mosaic is the same again
PAN = (0.2, 0.4)  # widths a second
ZOOM = (0.15, 0.3)  # change of the logarithm of the zoom a second
ROLL = (0.3, 0.6)  # radians a second
START_ZOOM = 0.25  # the logarithm of the zoom starts within plus or minus this
PUSH = 2.0  # widths / s² that an action of 1 accelerates the pan by
MOTIONS = 8


@dataclass
class Cameras:
    """All that differs between E episodes."""

    position: NDArray[np.float64]  # [E, 2] of the middle of the image, in widths
    velocity: NDArray[np.float64]  # [E, 2] along the axes of the image
    log_zoom: NDArray[np.float64]  # [E]
    zoom: NDArray[np.float64]  # [E] its change a second
    angle: NDArray[np.float64]  # [E]
    roll: NDArray[np.float64]  # [E] its change a second
    motion: NDArray[np.int64]  # [E]
    mosaic: NDArray[np.uint64]  # [E] key


class CameraBatch(WorldBatch):
    """Many cameras, each over a mosaic of its own."""

    name = "camera"
    action_size = 2
    action_names = ("right", "down")
    fps = 1.0 / FRAME_SECONDS
    policies = ("coast", "random")
    state_names = ("camera.vx", "camera.vy", "zoom", "roll")
    label_names = ("motion",)
    image_sizes = (32, 128)
    state: Cameras

    def draw(self, rng: np.random.Generator) -> Cameras:
        motion = int(rng.integers(MOTIONS))
        speed = rng.uniform(*PAN) * unit_vector(np.pi / 2 * (motion + rng.uniform(-0.5, 0.5)))
        zoom = rng.uniform(*ZOOM) * (1 if motion % 2 == 0 else -1)
        roll = rng.uniform(*ROLL) * (1 if motion % 2 == 0 else -1)
        return Cameras(
            position=rng.uniform(0, REPEATS / CELLS, 2),
            velocity=speed * (motion < 4),
            log_zoom=np.array(rng.uniform(-START_ZOOM, START_ZOOM)),
            zoom=np.array(zoom * (motion in (4, 5))),
            angle=np.array(rng.uniform(0, 2 * np.pi)),
            roll=np.array(roll * (motion in (6, 7))),
            motion=np.array(motion),
            mosaic=np.array(rng.integers(2**63, dtype=np.uint64)),
        )

    def step(self, actions: NDArray[np.floating]) -> None:
        """Advance one frame (0.1 s) under a push [E, 2] in -1..1."""
        s = self.state
        s.velocity += PUSH * FRAME_SECONDS * np.asarray(actions, dtype=np.float64).clip(-1, 1)
        s.position += FRAME_SECONDS * rotated(s.velocity, s.angle) / np.exp(s.log_zoom)[:, None]
        s.log_zoom += FRAME_SECONDS * s.zoom
        s.angle += FRAME_SECONDS * s.roll

    def render(self) -> NDArray[np.uint8]:
        """RGB images [E, size, size, 3]."""
        s = self.state
        at = (np.arange(self.image_size) + 0.5) / self.image_size - 0.5
        across, down = np.meshgrid(at, at)
        scale = (CELLS / np.exp(s.log_zoom))[:, None, None]
        cos, sin = scale * np.cos(s.angle)[:, None, None], scale * np.sin(s.angle)[:, None, None]
        x = cos * across - sin * down + CELLS * s.position[:, 0, None, None]
        y = sin * across + cos * down + CELLS * s.position[:, 1, None, None]
        image = paint_mosaic(self._mosaics, x.astype(np.float32), y.astype(np.float32))
        return (image * 255 + 0.5).astype(np.uint8)

    @cached_property
    def _mosaics(self) -> Mosaic:
        return make_mosaic(self.state.mosaic, REPEATS)

    def states(self) -> NDArray[np.float32]:
        """Ground truth [E, 4] as named by `state_names`."""
        s = self.state
        return np.column_stack([s.velocity, s.zoom, s.roll]).astype(np.float32)

    def policy_actions(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """Of `coast`: zeros."""
        if policy == "coast":
            return np.zeros((len(generators), frames - 1, self.action_size), np.float32)
        return super().policy_actions(policy, generators, frames)
