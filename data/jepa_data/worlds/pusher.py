"""The physics of Push-T, by pymunk: a round pusher and a T that does not slide by itself.

The T and the pusher, in px of a table 512 wide, as in Diffusion Policy (2303.04137) and DINO-WM (2411.04983):

    ┌───────────────┐  ─ 30     bar 120 x 30, stem 30 x 90; a body's position is the middle of the bar's upper edge
    └─────┐   ┌─────┘           (y points downwards, so that a T at angle 0 is drawn upright)
          │   │                 pusher: a disc of radius 15, moved by a spring to where the action wants it
          │   │  90             one action lasts 0.1 s, ten steps of the solver
          └───┘

Only the numbers of `Table` are stored between two actions. Contacts are computed again, so a step depends only on
(state, action), and a copy continues exactly like the original.

One space serves all tables, and Chipmunk, the C library of pymunk, is called directly. A T at rest that the pusher does
not touch is not simulated. An action takes 8 us of a CPU core where the pusher pushes, and 4 us where it wanders; with
a new pymunk space for every action, it takes 90. Poses agree to 1e-12 px.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from jepa_data.worlds import rows
from jepa_data.worlds.geometry import rotated
from jepa_data.worlds.packages import needed

TABLE = 512.0  # px
PUSHER = 15.0  # radius
UNIT = 30.0  # thickness of the T's bar and stem
BAR = ((-2 * UNIT, 0.0), (2 * UNIT, UNIT))  # upper left and lower right corner, in the body's frame
STEM = ((-UNIT / 2, UNIT), (UNIT / 2, 4 * UNIT))
CENTER_OF_MASS = (0.0, 45.0)  # as in both papers: the mean of the middles of bar (15) and stem (75)
WALLS = (5.0, 506.0)  # their middles
WALL = 2.0  # half their thickness
SUBSTEPS, SUBSTEP_SECONDS = 10, 0.01
SPAN = 78.0  # from the T's center of mass to its farthest corner, rounded up
MARGIN = 0.01  # px by which a pusher that passes by keeps clear of the T
SPRING, BRAKE = 100.0, 20.0  # of the pusher, per second squared and per second: critically damped


@dataclass
class Table:
    """The complete state of E tables, in px, radians and seconds."""

    agent: NDArray[np.float64]  # [E, 2]
    agent_velocity: NDArray[np.float64]  # [E, 2]
    block: NDArray[np.float64]  # [E, 3] x, y, angle
    block_velocity: NDArray[np.float64]  # [E, 3]


class Pushing:
    """Walls, pusher and T in one pymunk space that forgets after every action.

    Contacts, the order of shapes and the length of the last time step change the last digits of results. So the moving
    shapes are removed after an action, with their contacts, and added with the same numbers before the next one.
    """

    def __init__(self, world: str) -> None:
        pymunk = needed(world, "pymunk", "pusht")
        self._lib = pymunk._chipmunk_cffi.lib
        self._vectors = pymunk._chipmunk_cffi.ffi.from_buffer
        ground = pymunk.Body(body_type=pymunk.Body.STATIC)
        low, high = WALLS
        ends = [(low, low), (high, low), (high, high), (low, high)]
        walls = [pymunk.Segment(ground, a, b, WALL) for a, b in zip(ends, ends[1:] + ends[:1], strict=True)]
        agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        corners = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for (x0, y0), (x1, y1) in (BAR, STEM)]
        block = pymunk.Body(1.0, 2 * pymunk.moment_for_poly(1.0, corners[0]))
        moving = [pymunk.Circle(agent, PUSHER), *(pymunk.Poly(block, four) for four in corners)]
        block.center_of_gravity = CENTER_OF_MASS
        for shape in (*walls, *moving):
            shape.friction = 1.0
        space = pymunk.Space()
        space.damping = 0.0
        space.add(ground, agent, block, *walls)
        self._walls = len(walls)
        self._kept = (space, agent, block, moving)  # what the pointers below point to
        self._space = space._space
        self._agent = agent._body
        self._block = block._body
        self._moving = [shape._shape for shape in moving]

    def step(self, table: Table, targets: NDArray[np.float64]) -> None:
        """Advance every table by 0.1 s, in place; springs pull the pushers to `targets` [E, 2] in px.

        Raises:
            ValueError: a target is not finite, or a table is not.
        """
        path, velocities = _drawn(table, targets)
        if not all(np.isfinite(x).all() for x in (path, table.block, table.block_velocity)):
            raise ValueError("expected finite actions and states, found others: has a model or a planner diverged?")
        touched = np.flatnonzero(~_passed_by(table, path))
        moved = self._moved(rows.take(table, touched), velocities[touched])
        table.agent[:], table.agent_velocity[:] = path[:, -1], velocities[:, -1]
        table.block[touched], table.block_velocity[touched] = moved[:, :3], moved[:, 3:]

    def _moved(self, table: Table, velocities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pose and velocity of the Ts afterwards [E, 6], by the pushers' velocities [E, S, 2]."""
        lib = self._lib
        steps = iter(self._vectors("cpVect[]", np.ascontiguousarray(velocities)))
        moved = np.empty((len(velocities), 6))
        tables = zip(*(getattr(table, field.name).tolist() for field in fields(table)), strict=True)
        try:
            for e, one in enumerate(tables):
                self._lay(*one)
                for _ in range(SUBSTEPS):
                    lib.cpBodySetVelocity(self._agent, next(steps))
                    lib.cpSpaceStep(self._space, SUBSTEP_SECONDS)
                self._clear()
                position = lib.cpBodyGetPosition(self._block)
                velocity = lib.cpBodyGetVelocity(self._block)
                turn = lib.cpBodyGetAngularVelocity(self._block)
                angle = lib.cpBodyGetAngle(self._block)
                moved[e] = (position.x, position.y, angle, velocity.x, velocity.y, turn)
        finally:
            self._clear()  # an interrupted action too
        return moved

    def _lay(self, at: list[float], velocity: list[float], pose: list[float], block_velocity: list[float]) -> None:
        """Put a table into the space."""
        lib = self._lib
        agent, block = self._agent, self._block
        lib.cpBodySetPosition(agent, at)
        lib.cpBodySetVelocity(agent, velocity)
        lib.cpBodyUpdatePosition(block, 0.0)  # forgets how overlaps were about to be undone
        lib.cpBodySetAngle(block, pose[2])  # before the position: turning moves the T about its center of mass
        lib.cpBodySetPosition(block, pose[:2])
        lib.cpBodySetAngularVelocity(block, block_velocity[2])
        lib.cpBodySetVelocity(block, block_velocity[:2])
        lib.cpSpaceSetCurrentTimeStep(self._space, 0.0)
        lib.cpSpaceSetShapeIDCounter(self._space, self._walls)
        for shape in self._moving:
            lib.cpSpaceAddShape(self._space, shape)

    def _clear(self) -> None:
        """Take what moves out of the space, and all contacts with it."""
        for shape in self._moving:
            if self._lib.cpSpaceContainsShape(self._space, shape):
                self._lib.cpSpaceRemoveShape(self._space, shape)


def _drawn(table: Table, targets: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions and velocities of the pushers [E, S, 2] in every step of the solver: nothing stops them."""
    position, velocity = table.agent, table.agent_velocity
    path = np.empty((len(targets), SUBSTEPS, 2))
    velocities = np.empty_like(path)
    for step in range(SUBSTEPS):
        velocity = velocity + (SPRING * (targets - position) - BRAKE * velocity) * SUBSTEP_SECONDS
        position = position + velocity * SUBSTEP_SECONDS
        path[:, step], velocities[:, step] = position, velocity
    return path, velocities


def _passed_by(table: Table, path: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which Ts [E] stay as they are: at rest, and touched by neither their pusher nor a wall."""
    still = ~table.block_velocity.any(-1)
    middle = table.block[:, :2] + rotated(np.array(CENTER_OF_MASS), table.block[:, 2])
    clear = (middle > WALLS[0] + WALL + SPAN).all(-1) & (middle < WALLS[1] - WALL - SPAN).all(-1)
    seen = rotated(path - table.block[:, None, :2], -table.block[:, None, 2])  # from the T
    near = np.zeros(path.shape[:2], dtype=bool)
    for (x0, y0), (x1, y1) in (BAR, STEM):
        gaps = np.maximum(np.maximum((x0, y0) - seen, seen - (x1, y1)), 0.0)
        near |= np.square(gaps).sum(-1) < (PUSHER + MARGIN) ** 2
    return still & clear & ~near.any(-1)
