"""Worlds by name: many episodes side by side, or one with the Gymnasium API."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, Self

import gymnasium
import numpy as np
from numpy.typing import NDArray

from jepa_data.errors import DataError
from jepa_data.worlds.billiards import FPS, LEVELS, BilliardsBatch
from jepa_data.worlds.two_rooms import TwoRoomsBatch


class WorldBatch(Protocol):
    """Many episodes of a world side by side.

    A goal [E, G] names, as `goal_names` says, where something shall be; it is reached within `radius`, in `unit`.
    Actions are in -1..1. `policies`: who can record data. `has_expert`: whether there is a script that solves tasks.
    `copies`: whether `take` copies a state in the midst of an episode. `labels`: of whole episodes.
    """

    name: str
    image_size: int
    action_size: int
    fps: float
    version: int
    radius: float
    unit: str
    policies: tuple[str, ...]
    has_expert: bool
    copies: bool
    labels: dict[str, NDArray[np.int64]]

    @property
    def state_names(self) -> Sequence[str]: ...

    @property
    def label_names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def states(self) -> NDArray[np.float32]: ...

    def step(self, actions: NDArray[np.floating]) -> None: ...

    def render(self) -> NDArray[np.uint8]: ...

    def take(self, index: NDArray[np.intp]) -> Self: ...

    def act(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]: ...

    @property
    def goal_names(self) -> Sequence[str]: ...

    def draw_goals(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Goals [E, G] that can be reached, one for each episode."""
        ...

    def goal_state(self) -> NDArray[np.float64]:
        """The goal [E, G] that the present state reaches."""
        ...

    def place(self, goal: NDArray[np.floating]) -> None:
        """Go to where a goal [E, G] is reached, at rest: what is rendered then is the picture of the goal."""
        ...

    def distance(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """How far [E] the present state is from a goal [E, G], in `unit`."""
        ...

    def way_left(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """What [E] a planner that is told the truth makes small: the distance along a way that can be gone."""
        ...

    def speed(self) -> NDArray[np.float64]:
        """How fast [E] the thing is that shall come to rest at the goal; 0 if nothing moves by itself."""
        ...

    def expert(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The next action [E, A] of a scripted agent that knows the true state."""
        ...


WORLDS: dict[str, Callable[..., WorldBatch]] = {
    **{f"billiards-{level}": partial(BilliardsBatch, level) for level in LEVELS},
    "two-rooms": partial(TwoRoomsBatch, False),
    "two-rooms-random-wall": partial(TwoRoomsBatch, True),
}


def world_names() -> list[str]:
    """Names that `make_batch` and `make_env` know."""
    return list(WORLDS)


def make_batch(name: str, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> WorldBatch:
    """Episodes of a world side by side. Raises DataError for a name that is not in `world_names()`."""
    return WORLDS[_known(name)](episodes, image_size=image_size, seed=seed)


def make_env(name: str, **settings: Any) -> "World":
    """A world with the Gymnasium API. Raises DataError for a name that is not in `world_names()`."""
    return World(_known(name), **settings)


def _known(name: str) -> str:
    if name not in WORLDS:
        raise DataError(f"no world is named {name!r}; there are {', '.join(WORLDS)}")
    return name


class World(gymnasium.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """Bring the world to a goal. See the file of each world for what can be done in it.

    Observation: RGB picture [size, size, 3]. Action: in -1..1. Reward: minus the distance to the goal, in the world's
    unit. `info`: `state` by name, `goal`, `goal_picture`, `distance`, `success` (the distance is below the world's
    radius).
    Never terminates; is truncated after `max_steps`.

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
        self.observation_space = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        width = make_batch(name, np.arange(1), image_size=image_size).action_size
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (width,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        episode = int(options.get("episode", self.np_random.integers(2**31)))
        self.table = make_batch(self.name, np.array([episode]), image_size=self.image_size)
        free = self.table.draw_goals(self.np_random)[0]
        self.goal = np.asarray(options.get("goal", free), dtype=np.float64)
        at_goal = self.table.take(np.zeros(1, dtype=np.intp))
        at_goal.place(self.goal[None])
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
        distance = float(self.table.distance(self.goal[None])[0])
        state = zip(self.table.state_names, self.table.states()[0].tolist(), strict=True)
        return {
            "state": {name: value for name, value in state if value == value},  # NaN: a disc that is not there
            "goal": tuple(self.goal.tolist()),
            "goal_picture": self.goal_picture.copy(),
            "distance": distance,
            "success": distance < self.table.radius,
        }
