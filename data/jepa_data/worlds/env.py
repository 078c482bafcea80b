"""Worlds by name: many parallel episodes, or one with the Gymnasium API.

A name may end in a version, as in Gymnasium: `two-rooms-v1` is `two-rooms`, and becomes an error when the world is at
version 2. Installed packages add worlds by entry points of the group `openjepa.worlds`:

    [project.entry-points."openjepa.worlds"]
    my-world = "my_package.worlds:MyWorld"      # a subclass of WorldBatch, or of GoalBatch
"""

import re
from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from jepa_data.errors import DataError
from jepa_data.events import event_number
from jepa_data.worlds.base import GoalBatch, WorldBatch
from jepa_data.worlds.gym import PREFIX, REWARD, TERMINATED, GymBatch

WORLDS = {  # imported when first named
    "billiards-easy": "billiards:easy",
    "billiards-medium": "billiards:medium",
    "billiards-hard": "billiards:hard",
    "billiards-flicker": "billiards:flicker",
    "camera": "camera:CameraBatch",
    "two-rooms": "two_rooms:two_rooms",
    "two-rooms-random-wall": "two_rooms:two_rooms_random_wall",
    "cue-corridor": "cue_corridor:cue_corridor",
    "cue-corridor-10": "cue_corridor:cue_corridor_10",
    "cue-corridor-100": "cue_corridor:cue_corridor_100",
    "push-t": "push_t:PushTBatch",
    "point-maze-umaze": "mujoco.point_maze:umaze",
    "point-maze-medium": "mujoco.point_maze:medium",
    "reacher": "mujoco.reacher:ReacherBatch",
    "doom-rooms": "doom.rooms:DoomRoomsBatch",
    "take-cover": "doom.take_cover:TakeCoverBatch",
}
GROUP = "openjepa.worlds"


def world_names() -> list[str]:
    """Names of worlds for `make_batch` and `make_env`; "gym:ID" stands for any Gymnasium id."""
    return [*WORLDS, *sorted(entry_points(group=GROUP).names.difference(WORLDS)), f"{PREFIX}ID"]


def make_batch(name: str, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> WorldBatch:
    """Parallel episodes of a world.

    Raises:
        DataError: no world has that name or version, its package is not installed, or an entry point is not a world.
    """
    if name.startswith(PREFIX):
        return GymBatch(name, episodes, image_size=image_size, seed=seed)
    named = None
    make = _constructor(name)
    if make is None and (named := re.fullmatch(r"(.+)-v(\d+)", name)):
        make = _constructor(named[1])
    if make is None:
        near = get_close_matches(name, world_names(), n=1, cutoff=0.4)
        hint = "".join(f" (did you mean {other!r}?)" for other in near)
        raise DataError(f"no world is named {name!r}{hint}; there are {', '.join(world_names())}")
    batch = make(episodes, image_size=image_size, seed=seed)
    if named is not None and int(named[2]) != batch.version:
        raise DataError(f"{name}: {batch.name} has version {batch.version} here; name it {batch.name}-v{batch.version}")
    return batch


def make_goal_batch(name: str, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> GoalBatch:
    """Parallel episodes of a world with tasks.

    Raises:
        DataError: as `make_batch`, or the world can only be recorded.
    """
    batch = make_batch(name, episodes, image_size=image_size, seed=seed)
    if not isinstance(batch, GoalBatch):
        raise DataError(f"{name} can be recorded, but has no goals to plan for; choose another of {', '.join(WORLDS)}")
    return batch


def _constructor(name: str) -> Callable[..., WorldBatch] | None:
    """The constructor of a world; None if there is no such world."""
    if name in WORLDS:
        return resolve_name(f"jepa_data.worlds.{WORLDS[name]}")
    for point in entry_points(group=GROUP, name=name):
        where = f"{point.value} (entry point '{name}' of {GROUP})"
        try:
            world = point.load()
        except (ImportError, AttributeError) as error:
            raise DataError(f"{where} cannot be imported: {error}") from error
        if not (isinstance(world, type) and issubclass(world, WorldBatch)):
            raise DataError(f"{where}: expected a class derived from WorldBatch or GoalBatch, found {world!r}")
        if missing := sorted(getattr(world, "__abstractmethods__", ())):
            raise DataError(f"{where}: the class does not define {', '.join(missing)}")
        return world
    return None


def make_env(name: str, **settings: Any) -> "World":
    """A world with the Gymnasium API. Raises the same errors as `make_batch`."""
    return World(name, **settings)


class World(gymnasium.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """A Gymnasium environment: reach a goal in a world. The file of each world describes its actions and states.

    Observation: RGB image [size, size, 3]. Action: in -1..1. Reward: minus the distance to the goal, in the unit of the
    world. `info`: `state` by name, `goal`, `goal_image`, `distance`, `success` (the distance is below the radius of the
    world). Truncated after `max_steps`.

    Worlds without goals only have `state` in `info`; `gym:ID` has the rewards, terminations and truncations of the
    environment.

    `events` are the names of the world's events, such as `close-door`; `env.unwrapped.trigger("close-door")` before
    `step` lets one happen.

    `reset(options={"episode": n, "goal": (x, y)})` sets the episode and the goal; by default, both are drawn.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10.0}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self,
        name: str = "billiards-easy",
        *,
        image_size: int = 64,
        max_steps: int = 40,
        render_mode: str | None = "rgb_array",
    ) -> None:
        self.name = name
        self.image_size = image_size
        self.max_steps = max_steps
        self.render_mode = render_mode
        about = make_batch(name, np.arange(1), image_size=image_size)
        self.events = tuple(about.events)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": about.fps}
        self.observation_space = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (about.action_size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        episode = int(options.get("episode", self.np_random.integers(2**31)))
        self._steps = 0
        self.batch = make_batch(self.name, np.array([episode]), image_size=self.image_size)
        if isinstance(self.batch, GoalBatch):
            free = self.batch.draw_goals(self.np_random)[0]
            self.goal = np.asarray(options.get("goal", free), dtype=np.float64)
            at_goal = self.batch.take(np.zeros(1, dtype=np.intp))
            at_goal.set_goal_state(self.goal[None])
            self.goal_image = at_goal.render()[0]
        return self.render(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        if (shape := np.shape(action)) != self.action_space.shape:
            raise DataError(f"{self.name} takes actions of shape {self.action_space.shape}, found {shape}")
        if not np.isfinite(action).all():
            raise DataError(f"{self.name}: an action is {np.asarray(action).tolist()}; expected finite numbers, -1..1")
        self.batch.step(np.asarray(action)[None])
        self._steps += 1
        info = self._info()
        is_over = bool(self.batch.terminated()[0])
        reward = -info.get("distance", -info["state"].get(REWARD, 0.0))
        terminated = bool(info["state"].get(TERMINATED, is_over))
        truncated = self._steps >= self.max_steps or (is_over and not terminated)
        return self.render(), reward, terminated, truncated, info

    def trigger(self, event: str) -> None:
        """Let an event happen, right before the next `step`. Raises DataError if the world has no such event."""
        self.batch.trigger(np.array([event_number(event, self.events, self.name)]))

    def render(self) -> NDArray[np.uint8]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.batch.render()[0]

    def _info(self) -> dict[str, Any]:
        state = zip(self.batch.state_names, self.batch.states()[0].tolist(), strict=True)
        info: dict[str, Any] = {"state": {name: x for name, x in state if x == x}}  # NaN: a disc that is not there
        if not isinstance(self.batch, GoalBatch):
            return info
        distance = float(self.batch.distance(self.goal[None])[0])
        return info | {
            "goal": tuple(self.goal.tolist()),
            "goal_image": self.goal_image.copy(),
            "distance": distance,
            "success": distance < self.batch.radius,
        }
