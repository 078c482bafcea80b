"""Two rooms and a door: a dot must go through the door to reach a goal in the other room.

    0     4                              60   64      unit: 1/64 of the image's width; y points downwards
      ┌──────────────┬─────────────────┐      4       the wall is 2 thick, at x = 32, or at 20 to 44
      │   •          │                 │              the door is 8 high, at y = 32, or at 10 to 54
      │   agent      ·  door           │
      │              ·                 │              two-rooms               the same wall in all episodes
      │              │          goal   │              two-rooms-random-wall   another one in every episode
      └──────────────┴─────────────────┘      60

As in EB-JEPA and PLDM. An action [2] moves the dot by up to 1.8; a step that would end in a wall is not taken.

Events: `close-door`, `open-door`, and `move-door-up`, `move-door-down`, by 12, at most to y = 10 or 54.
Nothing happens to a door while the dot is in it. Scripted policies and distances take a closed door for an open one.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_data.spatial.kinds import SpatialInfo
from jepa_data.worlds import render, rows
from jepa_data.worlds.base import GoalBatch
from jepa_data.worlds.geometry import clip_to_unit, unit_vector

LOW, HIGH = 4.0, 60.0  # border walls
MARGIN = 1.0  # that free positions keep from them
THICK, DOOR = 1.0, 4.0  # half of the wall's thickness and of the door's height
LONGEST_STEP = 1.8
DOOR_MOVE = 12.0  # of an event
WALL_X, DOOR_Y = (20.0, 44.0), (10.0, 54.0)
DOT = 1.3  # standard deviation
TURN = 5.0  # kappa of a walk's turns
STEP = (1.0, 0.4, 0.2)  # length of a walk's steps: mean, standard deviation, minimum
THROUGH = 0.35  # share of walks that go through the door
LONGEST_LEG = 160  # steps after which `mixed` gives up a goal
REPEATED = 0.5  # share of walks that repeat each action: planners do, and get stuck at other places
REPEAT = 5  # steps


@dataclass
class Rooms:
    """State of parallel episodes."""

    position: NDArray[np.float64]  # [E, 2]
    wall: NDArray[np.float64]  # [E] x of its middle
    door: NDArray[np.float64]  # [E] y of its middle
    room: NDArray[np.int64]  # [E] where the dot starts: 0 is the left one
    closed: NDArray[np.bool_]  # [E] whether the door is closed


class TwoRoomsBatch(GoalBatch):
    """Parallel episodes; `random_wall`: a random wall and door in each."""

    action_size = 2
    action_names = ("right", "down")
    image_sizes = (32, 128)
    label_names = ("room",)
    goal_names = ("agent.x", "agent.y")
    radius = 4.5 / 64  # as in EB-JEPA and PLDM
    unit = "widths of the image"
    state_names = ("agent.x", "agent.y", "wall.x", "door.y")
    policies = ("random", "noisy-expert", "mixed")
    events = ("close-door", "open-door", "move-door-up", "move-door-down")
    state: Rooms

    def __init__(
        self, random_wall: bool, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0
    ) -> None:
        self.name = "two-rooms-random-wall" if random_wall else "two-rooms"
        self.random_wall = random_wall
        super().__init__(episodes, image_size=image_size, seed=seed)

    @property
    def spatial_infos(self) -> tuple[SpatialInfo, ...]:
        """Floor, walls and the dot (where it is at least half as bright as in its middle); the dot and the door."""
        side = self.image_size
        mask = SpatialInfo(kind="mask", shape=(side, side), dtype="uint8", names=("floor", "wall", "agent"))
        return mask, SpatialInfo(kind="keypoints", shape=(2, 3), dtype="float32", names=("agent", "door"))

    def draw(self, rng: np.random.Generator) -> Rooms:
        wall = door = 32.0
        if self.random_wall:
            wall = rng.uniform(*WALL_X)
            door = rng.uniform(*DOOR_Y)
        while True:
            position = rng.uniform(LOW + MARGIN, HIGH - MARGIN, 2)
            if abs(position[0] - wall) > THICK + MARGIN:
                room = np.array(position[0] > wall, dtype=np.int64)
                return Rooms(position, np.array(wall), np.array(door), room, np.array(False))

    def states(self) -> NDArray[np.float32]:
        """True states [E, 4] with the columns `state_names`, in widths of the image."""
        r = self.state
        return (np.column_stack([r.position, r.wall, r.door]) / 64).astype(np.float32)

    def step(self, actions: NDArray[np.floating]) -> None:
        """Move every dot by LONGEST_STEP times its action [E, 2], cut to length 1."""
        r = self.state
        there = r.position + LONGEST_STEP * clip_to_unit(np.asarray(actions, dtype=np.float64))
        outside = ((there < LOW) | (there > HIGH)).any(-1)
        at_door = (np.abs(there[:, 1] - r.door) <= DOOR) & ~r.closed
        in_wall = (np.abs(there[:, 0] - r.wall) <= THICK) & ~at_door
        r.position = np.where((outside | in_wall)[:, None], r.position, there)

    def happen(self, event: str, episodes: NDArray[np.intp]) -> None:
        """Close, open or move the doors of these episodes in which the dot is not."""
        r = self.state
        rows = episodes[np.abs(r.position[episodes, 0] - r.wall[episodes]) > THICK]
        if event in ("close-door", "open-door"):
            r.closed[rows] = event == "close-door"
        else:
            move = -DOOR_MOVE if event == "move-door-up" else DOOR_MOVE
            r.door[rows] = (r.door[rows] + move).clip(*DOOR_Y)

    def goal_state(self) -> NDArray[np.float64]:
        """Positions of the dots [E, 2], in widths of the image."""
        return self.state.position / 64

    def goal_at(self, point: NDArray[np.floating]) -> NDArray[np.float64]:
        """The nearest places [E, 2] to `point` that keep clear of the border."""
        return np.asarray(point, dtype=np.float64).clip((LOW + MARGIN) / 64, (HIGH - MARGIN) / 64)

    def image_point(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(goal, dtype=np.float64)

    def distance_to_goal(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """Walking distance to `goal` [E, 2], through the door if it is in the other room; both in widths."""
        r = self.state
        goal = np.asarray(goal, dtype=np.float64) * 64
        door = np.column_stack([r.wall, r.door])
        across = (r.position[:, 0] > r.wall) != (goal[:, 0] > r.wall)
        straight = np.linalg.norm(goal - r.position, axis=-1)
        through = np.linalg.norm(door - r.position, axis=-1) + np.linalg.norm(goal - door, axis=-1)
        return np.where(across, through, straight) / 64

    def set_goal_state(self, goal: NDArray[np.floating]) -> None:
        """Put the dots at `goal` [E, 2], in widths of the image."""
        self.state.position = np.asarray(goal, dtype=np.float64) * 64

    def draw_goals(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Free positions [E, 2] in the other room than the dot's, in widths of the image."""
        return self.goal_across(rng.uniform(size=(len(self), 2)))

    def expert(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The scripted path to `goal` [E, 2], in widths of the image: to the door, through it, and to the goal."""
        r = self.state
        goal = np.asarray(goal, dtype=np.float64) * 64
        here = r.position
        side = np.sign(goal[:, 0] - r.wall)
        across = np.sign(here[:, 0] - r.wall) != side  # in the other room, or in the doorway
        near = THICK + 2 * MARGIN
        in_line = np.abs(here[:, 1] - r.door) < DOOR - MARGIN
        before = np.column_stack([r.wall - side * near, r.door])
        behind = np.column_stack([r.wall + side * near, r.door])
        passing = np.abs(here[:, 0] - r.wall) <= near + MARGIN
        target = np.where(across[:, None], np.where((in_line & passing)[:, None], behind, before), goal)
        # Past the middle of the wall, but still between the door's posts: go on straight.
        between = ~across & (np.abs(here[:, 0] - r.wall) < THICK + MARGIN) & in_line
        target = np.where(between[:, None], behind, target)
        return (target - here) / LONGEST_STEP

    def policy_actions(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """Actions [E, frames-1, 2].

        random: a walk whose heading turns a little at every step; a third of the walks go through the door. Half of
            all walks repeat each action five times.
        noisy-expert: from goal to goal, each in the other room, with noise.
        mixed: walks of one to four seconds alternate with paths to a goal in the other room, at random speed.
        """
        world = self.take(np.arange(len(self)))
        if policy == "mixed":
            return world._mixed_actions(rows.stack([_Leg.draw(rng, frames) for rng in generators]), frames)
        walks = rows.stack([_Walk.draw(rng, frames) for rng in generators])
        if policy == "noisy-expert":
            walks.to_goal[:] = True
            walks.repeats[:] = False
        number = np.zeros(len(self), dtype=np.intp)
        goal = world.goal_across(walks.goals[:, 0])
        actions = np.zeros((len(self), frames - 1, 2), np.float32)
        for t in range(frames - 1):
            walks.heading = walks.heading + walks.turns[:, t]
            length = walks.lengths[:, t, None]
            walk = length * unit_vector(walks.heading) / LONGEST_STEP
            there = world.distance(goal) < 2 / 64
            number[there] = np.minimum(number[there] + 1, walks.goals.shape[1] - 1)
            goal[there] = world.goal_across(walks.goals[np.arange(len(self)), number])[there]
            wanted = clip_to_unit(world.expert(goal)) * (length / LONGEST_STEP)
            actions[:, t] = np.where(walks.to_goal[:, None], clip_to_unit(wanted + 0.35 * walk), clip_to_unit(walk))
            if t % REPEAT:
                actions[walks.repeats, t] = actions[walks.repeats, t - 1]
            if policy == "random":  # once through the door, it walks on at random
                walks.to_goal &= ~there
            world.step(actions[:, t])
        return actions

    def _mixed_actions(self, legs: "_Leg", frames: int) -> NDArray[np.float32]:
        episodes = np.arange(len(self))
        leg = np.zeros(len(self), np.intp)
        steps = np.zeros(len(self), np.intp)  # of the present leg
        goal = self.goal_across(legs.goals[:, 0])
        actions = np.zeros((len(self), frames - 1, 2), np.float32)
        for t in range(frames - 1):
            to_goal = legs.to_goal[episodes, leg]
            speed = legs.speed[episodes, leg, None]
            towards = clip_to_unit(clip_to_unit(self.expert(goal)) * speed + legs.noise[:, t])
            actions[:, t] = np.where(to_goal[:, None], towards, speed * unit_vector(legs.heading[:, t]))
            if t % REPEAT:
                again = legs.repeats[episodes, leg]
                actions[again, t] = actions[again, t - 1]
            self.step(actions[:, t])
            steps += 1
            arrived = (self.distance(goal) < 2.5 / 64) | (steps > LONGEST_LEG)
            over = np.where(to_goal, arrived, steps >= legs.length[episodes, leg])
            leg = np.minimum(leg + over, legs.goals.shape[1] - 1)
            steps = np.where(over, 0, steps)
            goal[over] = self.goal_across(legs.goals[episodes, leg])[over]
        return actions

    def goal_across(self, unit: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points of the unit square [E, 2] as free positions in the other room, in widths of the image."""
        r = self.state
        is_left = r.position[:, 0] < r.wall
        low = np.where(is_left, r.wall + THICK + MARGIN, LOW + MARGIN)
        high = np.where(is_left, HIGH - MARGIN, r.wall - THICK - MARGIN)
        y = LOW + MARGIN + unit[:, 1] * (HIGH - LOW - 2 * MARGIN)
        return np.column_stack([low + unit[:, 0] * (high - low), y]) / 64

    def render(self) -> NDArray[np.uint8]:
        """RGB images [E, size, size, 3]: the dot is red, walls are green."""
        image = self._walls.copy()
        at = (np.arange(self.image_size, dtype=np.float32) + 0.5) * 64 / self.image_size
        here = self.state.position.astype(np.float32)
        x, y = np.exp(-((at - here.T[..., None]) ** 2) / (2 * DOT**2))
        image[..., 0] = (255 * y[:, :, None] * x[:, None, :] + 0.5).astype(np.uint8)
        return image

    def spatial(self, kind: str) -> NDArray[Any]:
        """Mask [E, size, size], or keypoints [E, 2, 3]."""
        r = self.state
        if kind == "keypoints":
            points = np.stack([r.position, np.column_stack([r.wall, r.door])], 1) * (self.image_size / 64)
            return np.concatenate([points, np.ones((len(self), 2, 1))], -1).astype(np.float32)
        mask = (self._walls[..., 1] > 0).astype(np.uint8)
        here = (r.position / 64).astype(np.float32)
        radius = np.full(len(self), DOT * np.sqrt(2 * np.log(2)) / 64, np.float32)
        render.mask_discs(mask, here, radius, 2, np.ones(len(self), dtype=bool))
        return mask

    @cached_property
    def _walls(self) -> NDArray[np.uint8]:
        size = self.image_size
        at = (np.arange(size) + 0.5) * 64 / size
        at_border = np.minimum(at, 64 - at) <= LOW
        at_wall = np.abs(at - self.state.wall[:, None]) <= THICK
        at_doorpost = (np.abs(at - self.state.door[:, None]) > DOOR) | self.state.closed[:, None]
        inner = at_wall[:, None, :] & at_doorpost[:, :, None]
        image = np.zeros((len(self), size, size, 3), np.uint8)
        image[..., 1] = np.where(at_border | at_border[:, None] | inner, 180, 0)
        return image


@dataclass
class _Walk:
    """The random numbers of an episode's walk of T steps."""

    heading: NDArray[np.float64]  # []
    turns: NDArray[np.float64]  # [T]
    lengths: NDArray[np.float64]  # [T]
    to_goal: NDArray[np.bool_]  # [] whether it goes through the door
    goals: NDArray[np.float64]  # [G, 2] in the unit square
    repeats: NDArray[np.bool_]  # [] whether each action is repeated

    @classmethod
    def draw(cls, rng: np.random.Generator, frames: int) -> "_Walk":
        mean, deviation, shortest = STEP
        lengths = rng.normal(mean, deviation, (frames - 1, 8))
        fits = (lengths >= shortest) & (lengths <= LONGEST_STEP)
        first = fits.argmax(1)  # of eight draws the first within the limits, which truncates the normal
        lengths = lengths[np.arange(frames - 1), first].clip(shortest, LONGEST_STEP)
        return cls(
            np.array(rng.uniform(0, 2 * np.pi)),
            rng.vonmises(0.0, TURN, frames - 1),
            lengths,
            np.array(rng.uniform() < THROUGH),
            rng.uniform(size=(8, 2)),
            np.array(rng.uniform() < REPEATED),
        )


@dataclass
class _Leg:
    """The random numbers of an episode's L legs, and of its T steps."""

    length: NDArray[np.int64]  # [L] steps
    to_goal: NDArray[np.bool_]  # [L]
    repeats: NDArray[np.bool_]  # [L]
    speed: NDArray[np.float64]  # [L]
    goals: NDArray[np.float64]  # [L, 2]
    heading: NDArray[np.float64]  # [T]
    noise: NDArray[np.float64]  # [T, 2]

    @classmethod
    def draw(cls, rng: np.random.Generator, frames: int) -> "_Leg":
        legs = 1 + frames // 8
        return cls(
            rng.integers(10, 41, legs),
            rng.uniform(size=legs) < 0.5,
            rng.uniform(size=legs) < 0.6,
            np.where(rng.uniform(size=legs) < 0.5, 1.0, rng.uniform(0.3, 1.0, legs)),
            rng.uniform(size=(legs, 2)),
            rng.uniform(0, 2 * np.pi) + np.cumsum(rng.vonmises(0.0, 3.0, frames)),
            rng.normal(0, 0.25, (frames, 2)),
        )


two_rooms = partial(TwoRoomsBatch, False)
two_rooms_random_wall = partial(TwoRoomsBatch, True)
