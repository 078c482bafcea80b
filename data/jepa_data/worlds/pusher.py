"""The physics of Push-T, by pymunk: a round pusher and a T that does not slide by itself.

The T and the pusher, in px of a table 512 wide, as in Diffusion Policy (2303.04137) and DINO-WM (2411.04983):

    ┌───────────────┐  ─ 30     bar 120 x 30, stem 30 x 90; a body's position is the middle of the bar's upper edge
    └─────┐   ┌─────┘           (y points downwards, so that a T at angle 0 is drawn upright)
          │   │                 pusher: a disc of radius 15, moved by a spring to where the action wants it
          │   │  90             one action lasts 0.1 s, ten steps of the solver
          └───┘

Only the numbers of `Table` are stored between two actions. Contacts are computed again, so a step depends only on
(state, action), and a copy continues exactly like the original.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
SPRING, BRAKE = 100.0, 20.0  # of the pusher, per second squared and per second: critically damped


@dataclass
class Table:
    """The complete state of E tables, in px, radians and seconds."""

    agent: NDArray[np.float64]  # [E, 2]
    agent_velocity: NDArray[np.float64]  # [E, 2]
    block: NDArray[np.float64]  # [E, 3] x, y, angle
    block_velocity: NDArray[np.float64]  # [E, 3]


class Pushing:
    """Walls, pusher and T, set up in a new pymunk space for every step.

    A reused space stores contacts and the order of shapes, which change the last digits of results.
    """

    def __init__(self, world: str) -> None:
        self._pymunk = pymunk = needed(world, "pymunk", "pusht")
        ground = pymunk.Body(body_type=pymunk.Body.STATIC)
        low, high = WALLS
        ends = [(low, low), (high, low), (high, high), (low, high)]
        walls = [pymunk.Segment(ground, a, b, WALL) for a, b in zip(ends, ends[1:] + ends[:1], strict=True)]
        self._agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        corners = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for (x0, y0), (x1, y1) in (BAR, STEM)]
        self._block = pymunk.Body(1.0, 2 * pymunk.moment_for_poly(1.0, corners[0]))
        parts = [pymunk.Poly(self._block, four) for four in corners]
        self._block.center_of_gravity = CENTER_OF_MASS
        shapes = [*walls, pymunk.Circle(self._agent, PUSHER), *parts]
        for shape in shapes:
            shape.friction = 1.0
        self._things = [ground, self._agent, self._block, *shapes]

    def step(self, table: Table, targets: NDArray[np.float64]) -> None:
        """Advance every table by 0.1 s, in place; springs pull the pushers to `targets` [E, 2] in px."""
        for e, (x, y) in enumerate(targets.tolist()):
            self._lay(table, e)
            space = self._pymunk.Space()
            space.damping = 0.0
            space.add(*self._things)
            self._run(space, x, y)
            space.remove(*self._things)
            self._read(table, e)

    def _lay(self, table: Table, e: int) -> None:
        self._agent.position = tuple(table.agent[e].tolist())
        self._agent.velocity = tuple(table.agent_velocity[e].tolist())
        block = self._block
        self._pymunk.Body.update_position(block, 0.0)  # forgets how overlaps were about to be undone
        x, y, angle = table.block[e].tolist()
        block.angle = angle  # before the position: turning moves the T about its center of mass
        block.position = (x, y)
        vx, vy, block.angular_velocity = table.block_velocity[e].tolist()
        block.velocity = (vx, vy)

    def _run(self, space: Any, x: float, y: float) -> None:
        agent = self._agent
        for _ in range(SUBSTEPS):
            (px, py), (vx, vy) = agent.position, agent.velocity
            ax = SPRING * (x - px) - BRAKE * vx
            ay = SPRING * (y - py) - BRAKE * vy
            agent.velocity = (vx + ax * SUBSTEP_SECONDS, vy + ay * SUBSTEP_SECONDS)
            space.step(SUBSTEP_SECONDS)

    def _read(self, table: Table, e: int) -> None:
        table.agent[e] = self._agent.position
        table.agent_velocity[e] = self._agent.velocity
        table.block[e] = *self._block.position, self._block.angle
        table.block_velocity[e] = *self._block.velocity, self._block.angular_velocity
