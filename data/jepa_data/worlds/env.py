"""One billiards table with the Gymnasium API, and worlds by name."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from jepa_data.errors import DataError
from jepa_data.worlds.billiards import ACTION_SIZE, FPS, LEVELS, PUCK_RADIUS, BilliardsBatch

REACHED = 0.08  # table widths: about the radius of the puck


def world_names() -> list[str]:
    """Names that `make_batch` and `make_env` know."""
    return [f"billiards-{level}" for level in LEVELS]


def make_batch(name: str, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> BilliardsBatch:
    """Episodes of a world side by side. Raises DataError for a name that is not in `world_names()`."""
    return BilliardsBatch(_level(name), episodes, image_size=image_size, seed=seed)


def make_env(name: str, **settings: Any) -> "Billiards":
    """A world with the Gymnasium API. Raises DataError for a name that is not in `world_names()`."""
    return Billiards(_level(name), **settings)


def _level(name: str) -> str:
    if name not in world_names():
        raise DataError(f"no world is named {name!r}; there are {', '.join(world_names())}")
    return name.removeprefix("billiards-")


class Billiards(gymnasium.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """Push the puck to a goal. See `billiards.py` for the table.

    Observation: RGB picture [size, size, 3]. Action: force [2] in -1..1. Reward: minus the distance from the puck to
    goal, in table widths. `info`: `state` by name, `goal` (x, y), `goal_picture`, `distance`, `success` (distance
    below 0.08).
    Never terminates; is truncated after `max_steps`.

    `reset(options={"episode": n, "goal": (x, y)})` chooses the table and the goal; otherwise both are drawn.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self, level: str = "easy", *, image_size: int = 64, max_steps: int = 40, render_mode: str | None = "rgb_array"
    ) -> None:
        self.level, self.image_size, self.max_steps, self.render_mode = level, image_size, max_steps, render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        episode = int(options.get("episode", self.np_random.integers(2**31)))
        self.table = BilliardsBatch(self.level, np.array([episode]), image_size=self.image_size)
        free = self.np_random.uniform(PUCK_RADIUS, 1 - PUCK_RADIUS, 2)
        self.goal = np.asarray(options.get("goal", free), dtype=np.float64)
        at_goal = self.table.take(np.zeros(1, dtype=np.intp))
        at_goal.place_puck(self.goal[None])
        self.goal_picture, self._steps = at_goal.render()[0], 0
        return self.render(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self.table.step(np.asarray(action)[None])
        self._steps += 1
        info = self._info()
        return self.render(), -info["distance"], False, self._steps >= self.max_steps, info

    def render(self) -> NDArray[np.uint8]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.table.render()[0]

    def _info(self) -> dict[str, Any]:
        distance = float(np.linalg.norm(self.table.discs.position[0, 0] - self.goal))
        state = zip(self.table.state_names, self.table.states()[0].tolist(), strict=True)
        return {
            "state": {name: value for name, value in state if value == value},  # NaN: a disc that is not there
            "goal": tuple(self.goal.tolist()),
            "goal_picture": self.goal_picture.copy(),
            "distance": distance,
            "success": distance < REACHED,
        }
