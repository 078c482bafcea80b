"""Discs on a table, vectorized over episodes: forces, drag, walls, collisions.

Shapes: E episodes · M discs (disc 0 is the puck) · xy in table widths (0..1), velocities in table widths per second.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jepa_data.worlds.geometry import clip_to_unit

Array = NDArray[np.float64]

FRAME_SECONDS = 0.1
SUBSTEPS = 4
PUCK_ACCELERATION = 6.0  # table widths / s² at full force
PUCK_DRAG = 2.5  # 1/s: the puck's top speed is 2.4 widths a second


@dataclass
class Discs:
    """E tables of M discs. Discs that are not `present` do not move or collide."""

    position: Array  # [E, M, 2]
    velocity: Array  # [E, M, 2]
    radius: Array  # [E, M]
    mass: Array  # [E, M]
    bounce: Array  # [E, M] share of the speed kept on impact
    drag: Array  # [E, M] 1/s
    present: NDArray[np.bool_]  # [E, M]
    contact: NDArray[np.bool_]  # [E, M] touched a wall or a disc during the last frame

    def step(self, force: Array, gravity: Array | None = None) -> None:
        """Advance one frame.

        Args:
            force: [E, 2] in -1..1, pushes the puck (a longer vector is scaled back to length 1).
            gravity: [E, 2] table widths / s², accelerates all present discs; None: none.
        """
        force = clip_to_unit(np.asarray(force, dtype=np.float64))
        dt = FRAME_SECONDS / SUBSTEPS
        kept = np.exp(-self.drag * dt)[..., None]
        self.contact[:] = False
        pulled = None if gravity is None else gravity[:, None] * dt * self.present[..., None]
        for _ in range(SUBSTEPS):
            if pulled is not None:
                self.velocity += pulled
            self.velocity[:, 0] += PUCK_ACCELERATION * dt * force
            self.velocity *= kept
            self.position += dt * self.velocity
            self._collide_discs()
            self._collide_walls()

    def _collide_walls(self) -> None:
        on_table = np.clip(self.position, self.radius[..., None], 1.0 - self.radius[..., None])
        beyond = np.sign(self.position - on_table)  # -1 past the left or upper wall, 1 past the others, otherwise 0
        # Only a disc that moves into the wall bounces: one that already leaves it keeps its way.
        hit = beyond * self.velocity > 0
        self.velocity = np.where(hit, -self.bounce[..., None] * self.velocity, self.velocity)
        self.position = on_table
        self.contact |= (beyond != 0).any(-1) & self.present

    def _collide_discs(self) -> None:
        discs = self.radius.shape[1]
        for i in range(discs):
            for j in range(i + 1, discs):
                between = self.position[:, j] - self.position[:, i]
                distance = np.sqrt((between**2).sum(-1))
                overlap = self.radius[:, i] + self.radius[:, j] - distance
                touching = np.flatnonzero((overlap > 0) & self.present[:, i] & self.present[:, j])
                if touching.size:
                    self._bounce_apart(touching, i, j, between[touching], distance[touching], overlap[touching])

    def _bounce_apart(
        self, rows: NDArray[np.intp], i: int, j: int, between: Array, distance: Array, overlap: Array
    ) -> None:
        normal = between / np.maximum(distance, 1e-9)[:, None]
        mass_i = self.mass[rows, i]
        mass_j = self.mass[rows, j]
        share_i = (mass_j / (mass_i + mass_j))[:, None]
        self.position[rows, i] -= share_i * overlap[:, None] * normal
        self.position[rows, j] += (1 - share_i) * overlap[:, None] * normal
        closing = ((self.velocity[rows, i] - self.velocity[rows, j]) * normal).sum(-1)
        restitution = np.sqrt(self.bounce[rows, i] * self.bounce[rows, j])
        impulse = np.where(closing > 0, (1 + restitution) * closing / (1 / mass_i + 1 / mass_j), 0.0)[:, None]
        self.velocity[rows, i] -= impulse / mass_i[:, None] * normal
        self.velocity[rows, j] += impulse / mass_j[:, None] * normal
        self.contact[rows, i] = self.contact[rows, j] = True
