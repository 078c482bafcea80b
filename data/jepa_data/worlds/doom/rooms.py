"""doom-rooms: first-person navigation through four rooms to the pose of a goal image.

As in NWM (2412.03572), an action is a step forward, a step to the left and a turn, applied together. ViZDoom renders
the images; `map.py` generates the map. Motion is computed here, so that copies are cheap and exact. There are no
enemies.

    action [3]   forward, left, turn to the left; 1 is 24 units (a fast walk in Doom) and 20 degrees; the norm of the
                 step is clipped to 1. At a wall, only the component along the wall is taken
    state [3]    agent.x, agent.y in units from the middle of the map, which is 1152 wide, agent.angle in radians
                 (0 to 2 pi, counterclockwise from the east)
    goal [3]     the same; reached within 48 units (a Doom player is 32 wide) and 20 degrees. This criterion is
                 ours: NWM reports errors of whole paths
    events       light-off and light-on, of all rooms; close-doors and open-doors, of all rooms, which do nothing while
                 the walker is in a doorway. Each look of the map has a game of its own, started when it is first drawn.
                 Scripted policies, goals and path lengths take closed doors for open ones
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_data.errors import DataError
from jepa_data.spatial.kinds import SpatialInfo
from jepa_data.worlds import rows
from jepa_data.worlds.doom.map import CELL, DARK, LIGHT, wad, wall_cells
from jepa_data.worlds.doom.view import DoomDepthView, DoomView
from jepa_data.worlds.geometry import angle_of, rotated, wrapped
from jepa_data.worlds.maze_paths import MazePaths
from jepa_data.worlds.packages import needed
from jepa_data.worlds.waypoint_policy import WaypointBatch

NAME, EXTRA = "doom-rooms", "doom"
STEP, TURN = 24.0, np.deg2rad(20)
BODY = 20.0  # half of the square that the walker fills; Doom's is 16, and places are drawn at whole units
NEAR, ALIGNED = 48.0, np.deg2rad(20)  # of success
FAR = 3  # cells that a goal is away at least


class DoomRoomsBatch(WaypointBatch):
    """Parallel episodes, with one walker each.

    Raises:
        DataError: ViZDoom is not installed.
    """

    name = NAME
    action_size = 3
    action_names = ("forward", "step left", "turn left")
    state_names = goal_names = ("agent.x", "agent.y", "agent.angle")
    radius = 1.0
    unit = "times 48 units or 20 degrees"
    has_pose = True
    goal_draws = 4
    waypoint_radius = 1.0
    noise = 0.25
    events = ("light-off", "light-on", "close-doors", "open-doors")
    _paths = MazePaths(wall_cells(), CELL)
    _walls = np.stack([wall_cells(), wall_cells(doors_closed=True)])

    def __init__(self, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> None:
        needed(NAME, "vizdoom", EXTRA)
        super().__init__(episodes, image_size=image_size, seed=seed)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """x, y, angle; and 1 in the dark, 1 with closed doors."""
        unit = rng.uniform(size=4)
        cell = np.floor(unit[:1] * len(self._paths.middles)).astype(int)
        return np.concatenate([self._pose(cell, unit[None, 1:])[0], np.zeros(2)])

    def states(self) -> NDArray[np.floating]:
        """True states [E, 3] with the columns `state_names`."""
        return self.state[:, :3].astype(np.float32)

    def step(self, actions: NDArray[np.floating]) -> None:
        """Advance 0.1 s with actions [E, 3], clipped to -1..1: walk along the current angle, and turn."""
        actions = np.asarray(actions, dtype=np.float64).clip(-1, 1)
        walk = STEP * actions[:, :2] / np.maximum(1.0, np.linalg.norm(actions[:, :2], axis=-1, keepdims=True))
        x, y, angle = self.state[:, :3].T
        to_x, to_y = rotated(walk, angle).T
        x = np.where(self._is_free(x + to_x, y), x + to_x, x)
        y = np.where(self._is_free(x, y + to_y), y + to_y, y)
        self.state[:, :3] = np.column_stack([x, y, (angle + TURN * actions[:, 2]) % (2 * np.pi)])

    def happen(self, event: str, episodes: NDArray[np.intp]) -> None:
        """Switch the light, or close or open all doors of these episodes."""
        if event in ("light-off", "light-on"):
            self.state[episodes, 3] = event == "light-off"
            return
        poses = self.state[episodes]
        corners = [poses[:, :2] + BODY * np.array([i, j]) for i in (-1, 1) for j in (-1, 1)]
        in_a_door = np.logical_or.reduce([self._is_wall(corner, np.ones(len(poses))) for corner in corners])
        self.state[episodes[~in_a_door], 4] = event == "close-doors"

    def render(self) -> NDArray[np.uint8]:
        """RGB images [E, size, size, 3] from the poses of the walkers."""
        return self._drawn(lambda light, closed: _view(self.image_size, os.getpid(), light, closed).draw)

    @property
    def spatial_infos(self) -> tuple[SpatialInfo, ...]:
        """Depth in units of the map, to within 4 units."""
        side = self.image_size
        return (SpatialInfo(kind="depth", shape=(side, side), dtype="float16", unit="units"),)

    def spatial(self, kind: str) -> NDArray[np.float16]:
        """Depth [E, size, size], by ViZDoom."""
        return self._drawn(lambda light, closed: _depth_view(self.image_size, os.getpid(), closed).depth)

    def _drawn(self, view: Callable[[int, bool], Callable[[NDArray[np.float64]], NDArray[Any]]]) -> NDArray[Any]:
        """What `view` of each look of the map shows from the poses of the episodes that have it."""
        looks = self.state[:, 3:]
        shown: dict[int, NDArray[Any]] = {}
        for dark, closed in np.unique(looks, axis=0).tolist():
            index = np.flatnonzero((looks == [dark, closed]).all(1))
            images = view(DARK if dark else LIGHT, bool(closed))(self.state[index, :3])
            shown |= dict(zip(index.tolist(), images, strict=True))
        return np.stack([shown[number] for number in range(len(self))])

    def set_goal_state(self, goal: NDArray[np.floating]) -> None:
        """Set the walkers to `goal` [E, 3].

        Raises:
            DataError: there is no room for a walker.
        """
        goal = np.asarray(goal, dtype=np.float64)
        if not (free := self._is_free(goal[:, 0], goal[:, 1])).all():
            x, y, _ = goal[~free][0]
            raise DataError(f"{NAME}: no walker fits at ({x:g}, {y:g}): a wall is nearer than {BODY:g} units")
        self.state[:, :3] = np.column_stack([goal[:, :2], goal[:, 2] % (2 * np.pi)])

    def distance(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The maximum [E] of position error (straight line) and angle error, relative to their tolerances."""
        goal = np.asarray(goal, dtype=np.float64)
        away = np.linalg.norm(self.state[:, :2] - goal[:, :2], axis=-1)
        return np.maximum(away / NEAR, self._turn_left(goal))

    def distance_to_goal(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The sum [E] of path length through the doors and angle error, relative to their tolerances."""
        goal = np.asarray(goal, dtype=np.float64)
        return self._paths.length(self.state[:, :2], goal[:, :2]) / NEAR + self._turn_left(goal)

    def expert(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """Walk [E, 3] from cell to cell to `goal` [E, 3], facing forward; turn to the goal angle at the end."""
        goal = np.asarray(goal, dtype=np.float64)
        way = self._paths.next_point(self.state[:, :2], goal[:, :2]) - self.state[:, :2]
        length = np.linalg.norm(way, axis=-1)
        close = np.linalg.norm(goal[:, :2] - self.state[:, :2], axis=-1) < CELL
        look = np.where(close, goal[:, 2], angle_of(way))
        turn = wrapped(look - self.state[:, 2])
        # Who looks elsewhere first turns; so what is recorded are walks, not slides.
        slow = np.where(close, 1.0, np.cos(turn).clip(0.2, 1.0))
        walk = rotated(way, -self.state[:, 2]) * (slow / np.maximum(length, STEP))[:, None]
        return np.column_stack([walk, turn / TURN]).clip(-1, 1)

    def policy_actions(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """Actions [E, frames-1, 3].

        random: walks, mostly forward, each repeated for 1 to 8 frames; at a wall, the walker turns away from it.
        noisy-expert: from one pose to the next, with noise.
        """
        if policy == "noisy-expert":
            return super().policy_actions(policy, generators, frames)
        world = self.take(np.arange(len(self)))
        stroll = rows.stack([_Stroll.draw(rng, frames, self.longest_repeat) for rng in generators])
        actions = np.zeros((len(self), frames - 1, 3), np.float32)
        for t in range(frames - 1):
            before = world.goal_state()
            actions[:, t] = stroll.act()
            world.step(actions[:, t])
            gone = np.linalg.norm((world.goal_state() - before)[:, :2], axis=-1)
            wanted = STEP * np.linalg.norm(actions[:, t, :2], axis=-1).clip(0, 1)
            stroll.bumped = gone < 0.5 * wanted
        return actions

    def goals_from(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Poses [E, 3] at a distance of at least three cells of 128 units."""
        return self._pose(self._paths.far_cells(self.state[:, :2], FAR, unit[:, 0]), unit[:, 1:])

    def _pose(self, cells: NDArray[np.intp], unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers in 0..1 [E, 3] as poses in the given cells, clear of all walls."""
        offset = (CELL / 2 - BODY - 1) * (2 * unit[:, :2] - 1)
        return np.column_stack([self._paths.middles[cells] + offset, 2 * np.pi * unit[:, 2]])

    def _turn_left(self, goal: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.abs(wrapped(goal[:, 2] - self.state[:, 2])) / ALIGNED

    def _is_free(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether a walker fits [E]: no corner of its square is in a wall. Walls are wider than the walker."""
        corners = [np.column_stack([x + i * BODY, y + j * BODY]) for i in (-1, 1) for j in (-1, 1)]
        return ~np.logical_or.reduce([self._is_wall(corner, self.state[:, 4]) for corner in corners])

    def _is_wall(self, position: NDArray[np.float64], closed: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which positions [E, 2] are in a wall, or in a door that is `closed` [E]."""
        return self._walls[closed.astype(np.intp), *self._paths.row_column(position)]


@dataclass
class _Stroll:
    """Random walks; the random numbers are drawn first, so that walls do not change them."""

    moves: NDArray[np.float64]  # [E, T-1, 3]
    repeats: NDArray[np.int64]  # [E, T-1] frames of each
    aside: NDArray[np.float64]  # [E, T-1] the turn, to one side, of who came to a wall
    number: NDArray[np.int64]  # [E] of the present move
    left: NDArray[np.int64]  # [E] frames of it that are left
    bumped: NDArray[np.bool_]  # [E]

    @classmethod
    def draw(cls, rng: np.random.Generator, frames: int, longest: int) -> "_Stroll":
        """Of one episode."""
        moves = rng.uniform(-1, 1, (frames - 1, 3))
        forward = rng.uniform(size=frames - 1) < 0.7
        moves[forward] = moves[forward] * [0.35, 0.4, 0.7] + [0.65, 0, 0]
        aside = rng.uniform(0.6, 1, frames - 1) * rng.choice([-1, 1], frames - 1)
        repeats = rng.integers(1, longest + 1, frames - 1)
        return cls(moves, repeats, aside, np.array(0), np.array(repeats[0]), np.array(False))

    def act(self) -> NDArray[np.float64]:
        """The actions [E, 3] of the next frame."""
        episodes = np.arange(len(self.number))
        over = (self.left == 0) | self.bumped
        self.number[over] += 1
        self.left[over] = self.repeats[episodes, self.number][over]
        moves = self.moves[episodes, self.number]
        # The rest of this move leads away from the wall.
        away = np.column_stack([-0.5 * np.abs(moves[:, 0]), 0.5 * moves[:, 1], self.aside[episodes, self.number]])
        self.moves[episodes, self.number] = np.where(self.bumped[:, None], away, moves)
        self.left -= 1
        return self.moves[episodes, self.number]


@cache
def _view(size: int, process: int, light: int = LIGHT, doors_closed: bool = False) -> DoomView:
    """One for each process: a forked one would talk to its parent's game."""
    return DoomView(NAME, EXTRA, wad(light, doors_closed), size)


@cache
def _depth_view(size: int, process: int, doors_closed: bool = False) -> DoomDepthView:
    return DoomDepthView(NAME, EXTRA, wad(LIGHT, doors_closed), size)
