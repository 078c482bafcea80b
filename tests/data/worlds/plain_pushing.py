"""One action of Push-T with pymunk's classes alone, in a new space: slow, and the oracle of `Pushing`."""

import pymunk

from jepa_data.worlds.pusher import (
    BAR,
    BRAKE,
    CENTER_OF_MASS,
    PUSHER,
    SPRING,
    STEM,
    SUBSTEP_SECONDS,
    SUBSTEPS,
    WALL,
    WALLS,
    Table,
)


def plain_step(table: Table, e: int, target: tuple[float, float]) -> tuple[list[float], list[float]]:
    """Pose and velocity of the T of table e after one action."""
    space = pymunk.Space()
    space.damping = 0.0
    low, high = WALLS
    ends = [(low, low), (high, low), (high, high), (low, high)]
    ground = pymunk.Body(body_type=pymunk.Body.STATIC)
    walls = [pymunk.Segment(ground, a, b, WALL) for a, b in zip(ends, ends[1:] + ends[:1], strict=True)]
    agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
    agent.position, agent.velocity = tuple(table.agent[e]), tuple(table.agent_velocity[e])
    corners = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for (x0, y0), (x1, y1) in (BAR, STEM)]
    block = pymunk.Body(1.0, 2 * pymunk.moment_for_poly(1.0, corners[0]))
    shapes = [*walls, pymunk.Circle(agent, PUSHER), *(pymunk.Poly(block, four) for four in corners)]
    block.center_of_gravity = CENTER_OF_MASS
    block.angle = table.block[e, 2]
    block.position = tuple(table.block[e, :2])
    block.velocity, block.angular_velocity = tuple(table.block_velocity[e, :2]), table.block_velocity[e, 2]
    for shape in shapes:
        shape.friction = 1.0
    space.add(ground, agent, block, *shapes)
    for _ in range(SUBSTEPS):
        pull = [
            SPRING * (to - at) - BRAKE * v for to, at, v in zip(target, agent.position, agent.velocity, strict=True)
        ]
        agent.velocity = tuple(v + a * SUBSTEP_SECONDS for v, a in zip(agent.velocity, pull, strict=True))
        space.step(SUBSTEP_SECONDS)
    return [*block.position, block.angle], [*block.velocity, block.angular_velocity]
