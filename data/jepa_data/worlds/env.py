"""Worlds by name: many episodes side by side, or one with the Gymnasium API."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from jepa_data.errors import DataError
from jepa_data.worlds.base import GoalBatch, WorldBatch
from jepa_data.worlds.billiards import FPS, LEVELS, BilliardsBatch
from jepa_data.worlds.doom.rooms import DoomRoomsBatch
from jepa_data.worlds.gym import PREFIX, REWARD, TERMINATED, GymBatch
from jepa_data.worlds.mujoco.point_maze import MAZES, PointMazeBatch
from jepa_data.worlds.mujoco.reacher import ReacherBatch
from jepa_data.worlds.push_t import PushTBatch
from jepa_data.worlds.two_rooms import TwoRoomsBatch

WORLDS: dict[str, Callable[..., GoalBatch]] = {
    **{f"billiards-{level}": partial(BilliardsBatch, level) for level in LEVELS},
    "two-rooms": partial(TwoRoomsBatch, False),
    "two-rooms-random-wall": partial(TwoRoomsBatch, True),
    "push-t": PushTBatch,
    **{f"point-maze-{maze}": partial(PointMazeBatch, maze) for maze in MAZES},
    "reacher": ReacherBatch,
    "doom-rooms": DoomRoomsBatch,
}


def world_names() -> list[str]:
    """Names that `make_batch` and `make_env` know; ID stands for that of a Gymnasium environment."""
    return [*WORLDS, f"{PREFIX}ID"]


def make_batch(name: str, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> WorldBatch:
    """Episodes of a world side by side.

    Raises:
        DataError: no world has that name, or its package is not installed.
    """
    if name.startswith(PREFIX):
        return GymBatch(name, episodes, image_size=image_size, seed=seed)
    return make_goal_batch(name, episodes, image_size=image_size, seed=seed)


def make_goal_batch(name: str, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> GoalBatch:
    """Episodes of a world that sets tasks.

    Raises:
        DataError: no world has that name, its package is not installed, or it can only be recorded.
    """
    if name.startswith(PREFIX):
        raise DataError(f"{name} can be recorded, but has no goals to plan for; worlds with goals: {', '.join(WORLDS)}")
    if name not in WORLDS:
        near = get_close_matches(name, world_names(), n=1, cutoff=0.4)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise DataError(f"no world is named {name!r}{hint}; there are {', '.join(world_names())}")
    return WORLDS[name](episodes, image_size=image_size, seed=seed)


def make_env(name: str, **settings: Any) -> "World":
    """A world with the Gymnasium API. Raises what `make_batch` does."""
    return World(name, **settings)


class World(gymnasium.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """Bring the world to a goal. See the file of each world for what can be done in it.

    Observation: RGB picture [size, size, 3]. Action: in -1..1. Reward: minus the distance to the goal, in the world's
    unit. `info`: `state` by name, `goal`, `goal_picture`, `distance`, `success` (the distance is below the world's
    radius). Is truncated after `max_steps`.

    A world without goals (`gym:ID`) gives its own rewards and only the state; it terminates and is truncated where the
    environment is.

    `reset(options={"episode": n, "goal": (x, y)})` chooses the episode and the goal; otherwise both are drawn.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self,
        name: str = "billiards-easy",
        *,
        image_size: int = 64,
        max_steps: int = 40,
        render_mode: str | None = "rgb_array",
    ) -> None:
        self.name, self.image_size, self.max_steps, self.render_mode = name, image_size, max_steps, render_mode
        about = make_batch(name, np.arange(1), image_size=image_size)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": about.fps}
        self.observation_space = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (about.action_size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        episode = int(options.get("episode", self.np_random.integers(2**31)))
        self._steps, self._goals = 0, None
        if self.name.startswith(PREFIX):
            self.table: WorldBatch = make_batch(self.name, np.array([episode]), image_size=self.image_size)
            return self.render(), self._info()
        self.table = self._goals = make_goal_batch(self.name, np.array([episode]), image_size=self.image_size)
        free = self._goals.draw_goals(self.np_random)[0]
        self.goal = np.asarray(options.get("goal", free), dtype=np.float64)
        at_goal = self._goals.take(np.zeros(1, dtype=np.intp))
        at_goal.set_goal_state(self.goal[None])
        self.goal_picture = at_goal.render()[0]
        return self.render(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        if (shape := np.shape(action)) != self.action_space.shape:
            raise DataError(f"{self.name} takes actions of shape {self.action_space.shape}, found {shape}")
        if not np.isfinite(action).all():
            raise DataError(f"{self.name}: an action is {np.asarray(action).tolist()}; expected finite numbers, -1..1")
        self.table.step(np.asarray(action)[None])
        self._steps += 1
        info, over = self._info(), self._steps >= self.max_steps
        if self._goals is not None:
            return self.render(), -info["distance"], bool(self.table.terminated()[0]), over, info
        terminated = bool(info["state"][TERMINATED])
        over |= bool(self.table.terminated()[0]) and not terminated
        return self.render(), info["state"][REWARD], terminated, over, info

    def render(self) -> NDArray[np.uint8]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.table.render()[0]

    def _info(self) -> dict[str, Any]:
        state = zip(self.table.state_names, self.table.states()[0].tolist(), strict=True)
        info: dict[str, Any] = {"state": {name: x for name, x in state if x == x}}  # NaN: a disc that is not there
        if self._goals is None:
            return info
        distance = float(self._goals.distance(self.goal[None])[0])
        return info | {
            "goal": tuple(self.goal.tolist()),
            "goal_picture": self.goal_picture.copy(),
            "distance": distance,
            "success": distance < self._goals.radius,
        }
