"""Push-T: a round pusher moves a T to the position and angle of a goal image.

Task, sizes and success criterion are those of DINO-WM (2411.04983); the table is that of Diffusion Policy (2303.04137),
see `pushing/table.py`. The data differ: DINO-WM replays human demonstrations with noise, and here scripts push (see
`pushing/policies.py`), so published scores are not directly comparable. Contacts make open-loop plans fail.

    action [2]   target of the pusher, as an offset; 1 is 100 px. Goals and starts are inside the table
    state [7]    agent.x, agent.y, block.x, block.y, block.angle, agent.vx, agent.vy, in px of a table 512 wide, radians
                 (0 to 2 pi) and px a second
    goal [5]     the first five of these; reached if the four positions together are within 20 px (the norm of their
                 four differences) and the angle within 20 degrees
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_data.spatial.kinds import SpatialInfo
from jepa_data.worlds import render, rows
from jepa_data.worlds.base import GoalBatch
from jepa_data.worlds.geometry import in_unit_disc, rotated, wrapped
from jepa_data.worlds.pushing.policies import PUSHER_RANGE, REACH, Demonstration, Script
from jepa_data.worlds.pushing.table import BAR, PUSHER, STEM, TABLE, WALL, WALLS, Pushing, Table

NEAR, ALIGNED = 20.0, np.pi / 9  # px and radians of success
AGENT_DRAWN, BLOCK_DRAWN = (50.0, 450.0), (100.0, 400.0)  # where starts and goals lie
PAPER = np.array([0.96, 0.96, 0.94], np.float32)
SLATE = np.array([0.35, 0.42, 0.5], np.float32)
BLUE = np.array([0.1, 0.3, 0.95], np.float32)
CORNERS = np.array([(x, y) for (x0, y0), (x1, y1) in (BAR, STEM) for x in (x0, x1) for y in (y0, y1)])
POINTS = ("agent", *(f"{bar}.{side}" for bar in ("bar", "stem") for side in ("nw", "sw", "ne", "se")))
BOXES = tuple(tuple((x / TABLE, y / TABLE) for x, y in box) for box in (BAR, STEM))


class PushTBatch(GoalBatch):
    """Parallel tables."""

    name = "push-t"
    action_size = 2
    action_names = ("right", "down")
    state_names = ("agent.x", "agent.y", "block.x", "block.y", "block.angle", "agent.vx", "agent.vy")
    goal_names = state_names[:5]
    radius = 1.0
    unit = "times 20 px or 20 degrees"
    policies = ("random", "pusher", "demonstrations")
    longest_repeat = 7
    state: Table

    def __init__(self, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> None:
        self._physics = Pushing(self.name)
        super().__init__(episodes, image_size=image_size, seed=seed)

    @property
    def spatial_infos(self) -> tuple[SpatialInfo, ...]:
        """Table, T and, on top, the pusher; the middle of the pusher, and the corners of the two bars of the T."""
        side = self.image_size
        mask = SpatialInfo(kind="mask", shape=(side, side), dtype="uint8", names=("table", "block", "agent"))
        points = SpatialInfo(kind="keypoints", shape=(1 + len(CORNERS), 3), dtype="float32", names=POINTS)
        return mask, points

    def draw(self, rng: np.random.Generator) -> Table:
        return _at_rest(_draw(rng))

    def states(self) -> NDArray[np.float32]:
        return np.column_stack([self.goal_state(), self.state.agent_velocity]).astype(np.float32)

    def step(self, actions: NDArray[np.floating]) -> None:
        """Advance 0.1 s with actions [E, 2], clipped to -1..1."""
        wanted = self.state.agent + REACH * np.asarray(actions, dtype=np.float64).clip(-1, 1)
        self._physics.step(self.state, wanted.clip(*PUSHER_RANGE))

    def render(self) -> NDArray[np.uint8]:
        """RGB images [E, size, size, 3]: the T is gray, the pusher blue."""
        count = len(self)
        image = np.tile(PAPER, (count, self.image_size, self.image_size, 1))
        pose = (self.state.block / (TABLE, TABLE, 1.0)).astype(np.float32)
        render.paint_boxes(image, pose, BOXES, SLATE)
        agent = (self.state.agent / TABLE).astype(np.float32)
        radius = np.full(count, PUSHER / TABLE, np.float32)
        render.paint_discs(image, agent, radius, np.tile(BLUE, (count, 1)), np.ones(count, dtype=bool))
        return (image * 255 + 0.5).astype(np.uint8)

    def spatial(self, kind: str) -> NDArray[Any]:
        """Mask [E, size, size], or keypoints [E, 9, 3]; a corner is visible unless the pusher is over it."""
        block = self.state.block
        agent = self.state.agent / TABLE
        if kind == "keypoints":
            angle = np.repeat(block[:, 2, None], len(CORNERS), 1)
            corners = (
                block[:, None, :2] + rotated(np.broadcast_to(CORNERS, (len(self), *CORNERS.shape)), angle)
            ) / TABLE
            hidden = np.linalg.norm(corners - agent[:, None], axis=-1) < PUSHER / TABLE
            points = np.concatenate([agent[:, None], corners], 1) * self.image_size
            seen = np.column_stack([np.ones(len(self)), ~hidden])
            return np.concatenate([points, seen[..., None]], -1).astype(np.float32)
        mask = np.zeros((len(self), self.image_size, self.image_size), np.uint8)
        render.mask_boxes(mask, (block / (TABLE, TABLE, 1.0)).astype(np.float32), BOXES, 1)
        radius = np.full(len(self), PUSHER / TABLE, np.float32)
        render.mask_discs(mask, agent.astype(np.float32), radius, 2, np.ones(len(self), dtype=bool))
        return mask

    def goal_state(self) -> NDArray[np.float64]:
        """Poses of pusher and T [E, 5]."""
        t = self.state
        return np.column_stack([t.agent, t.block[:, :2], t.block[:, 2] % (2 * np.pi)])

    def goal_at(self, point: NDArray[np.floating]) -> NDArray[np.float64]:
        """The T at `point` [E, 2], turned as it is now; the pusher stays where it is."""
        goal = self.goal_state()
        goal[:, 2:4] = (TABLE * np.asarray(point, dtype=np.float64)).clip(*BLOCK_DRAWN)
        return goal

    def image_point(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(goal, dtype=np.float64)[:, 2:4] / TABLE

    def distance(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The maximum [E] of position and angle error, relative to their tolerances."""
        return np.maximum(*self._left(goal))

    def distance_to_goal(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The sum of both errors, which decreases when either does."""
        return np.add(*self._left(goal))

    def set_goal_state(self, goal: NDArray[np.floating]) -> None:
        """Put pusher and T at `goal` [E, 5], at rest."""
        self.state = _at_rest(np.asarray(goal, dtype=np.float64))

    def random_action(self, rng: np.random.Generator) -> NDArray[np.float64]:
        return in_unit_disc(rng)

    def policy_actions(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """Actions [E, frames-1, 2].

        random: uniform offsets in the unit disc, each repeated for 1 to 7 frames. The T moves in one of twelve frames.
        pusher: a script that walks around the T, and then through it, towards a point drawn for every push, with noise.
            The T moves in four of ten frames. It has no goal, so it is not an expert.
        demonstrations: a script that moves the T slowly to poses, and its actions again with noise. The T moves in half
            of the frames, 60 px and 35 degrees in 25 of them.
        """
        if policy == "random":
            return super().policy_actions(policy, generators, frames)
        draw = {"pusher": Script.draw, "demonstrations": Demonstration.draw}[policy]
        script: Script | Demonstration = rows.stack([draw(rng, frames) for rng in generators])
        world = self.take(np.arange(len(self)))
        actions = np.zeros((len(self), frames - 1, 2), np.float32)
        for t in range(frames - 1):
            actions[:, t] = script.act(world.state, t)
            world.step(actions[:, t])
        return script.replayed(actions)

    def _left(self, goal: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position and angle errors [E], relative to their tolerances."""
        away = self.goal_state() - goal
        return np.linalg.norm(away[:, :4], axis=-1) / NEAR, np.abs(wrapped(away[:, 4])) / ALIGNED


def _draw(rng: np.random.Generator) -> NDArray[np.float64]:
    """A pusher and a T that touch neither each other nor a wall: [5]."""
    while True:
        agent = rng.uniform(*AGENT_DRAWN, 2)
        block = rng.uniform(*BLOCK_DRAWN, 2)
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        reach = block + CORNERS @ turn.T
        x, y = (agent - block) @ turn
        gaps = [(max(x0 - x, x - x1, 0.0), max(y0 - y, y - y1, 0.0)) for (x0, y0), (x1, y1) in (BAR, STEM)]
        free = min(np.hypot(*gap) for gap in gaps) > PUSHER
        if free and (reach > WALLS[0] + WALL).all() and (reach < WALLS[1] - WALL).all():
            return np.array([*agent, *block, angle])


def _at_rest(poses: NDArray[np.float64]) -> Table:
    """Tables of goals [..., 5]."""
    agent = poses[..., :2].copy()
    block = poses[..., 2:].copy()
    return Table(agent, np.zeros_like(agent), block, np.zeros_like(block))
