"""`gym:ID`: any Gymnasium environment that renders images (`render_mode="rgb_array"`), such as `gym:Pendulum-v1`.

    actions   a bounded Box is scaled to -1..1 and flattened; n discrete actions are the argmax of [n];
              for integers (Box, MultiDiscrete, MultiBinary), -1..1 is divided evenly among the values
    state     the vectors and numbers of the observation, in the order of its space, without images and other arrays of
              more than one dimension; the last reward (`reward`, NaN before the first), and `terminated`, 0 or 1
    fps       that of the environment's metadata, or 10
    ending    the recording of an episode stops when the environment terminates or truncates it

It can be recorded, but sets no tasks: Gymnasium cannot set a state. Copies replay all actions. Gymnasium's extras
install the packages of most environments; pip install 'openjepa[gym]' installs `classic-control`.
"""

import os
import re
import sys
from collections.abc import Iterator
from typing import Any, Self

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image

from jepa_data.errors import DataError
from jepa_data.worlds.base import WorldBatch

PREFIX = "gym:"
REWARD, TERMINATED = "reward", "terminated"  # the last two states
OTHER_FPS = 10.0  # of environments that tell none
NUMBERS = (spaces.Discrete, spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)


class GymBatch(WorldBatch):
    """Parallel environments. The state is the seed of each; the actions so far are stored for copies.

    Args:
        name: `gym:` and an id that Gymnasium knows.
        image_size: in pixels; images of any shape are scaled to a square of this size.

    Raises:
        DataError: Gymnasium has no such id, a package is missing, or actions or images are not supported.
    """

    image_sizes = (16, 512)
    longest_repeat = 4

    def __init__(self, name: str, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> None:
        self.name = name
        super().__init__(episodes, image_size=image_size, seed=seed)
        self._restart([[] for _ in episodes])
        env = self._envs[0]
        self.action_size = _action_width(name, env.action_space)
        self.discrete = isinstance(env.action_space, spaces.Discrete)
        self.state_names = (*_names(env.observation_space, self._seen[0]), REWARD, TERMINATED)
        self.fps = float(env.metadata.get("render_fps") or OTHER_FPS)
        version = re.findall(r"-v(\d+)$", name) or [0]
        self.version = 1 + int(version[0])

    def draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        return np.array(rng.integers(2**31))

    def states(self) -> NDArray[np.float64]:
        """The last observations, rewards and terminations [E, X] with the columns `state_names`."""
        space = self._envs[0].observation_space
        seen = np.stack([_flat(space, seen) for seen in self._seen])
        return np.column_stack([seen, self._reward, self._terminated])

    def terminated(self) -> NDArray[np.bool_]:
        """Which environments have terminated or were truncated [E]."""
        return self._is_over.copy()

    def step(self, actions: NDArray[np.floating]) -> None:
        """Step the environments that have not ended, with actions [E, A], clipped to -1..1."""
        for e, action in enumerate(np.asarray(actions, dtype=np.float64)):
            if not self._is_over[e]:
                self._step(e, action.copy())

    def render(self) -> NDArray[np.uint8]:
        return np.stack([self._image(env) for env in self._envs])

    def take(self, index: NDArray[np.intp]) -> Self:
        """New environments with the seeds of the chosen ones, which replay all actions."""
        other = super().take(index)
        other._restart([self._done[i] for i in index])
        return other

    def random_action(self, rng: np.random.Generator) -> NDArray[np.floating]:
        """A uniform action [A]; discrete actions are one-hot."""
        if self.discrete:
            return np.eye(self.action_size)[rng.integers(self.action_size)]
        return super().random_action(rng)

    def _restart(self, done: list[list[NDArray[np.float64]]]) -> None:
        """Make and reset an environment for each seed, and replay its actions."""
        self._envs = [_make(self.name) for _ in done]
        self._seen: list[Any] = [
            env.reset(seed=seed)[0] for env, seed in zip(self._envs, self.state.tolist(), strict=True)
        ]
        self._is_over = np.zeros(len(done), dtype=bool)
        self._terminated = np.zeros(len(done), dtype=bool)
        self._reward = np.full(len(done), np.nan)
        self._done: list[list[NDArray[np.float64]]] = [[] for _ in done]
        for e, actions in enumerate(done):
            for action in actions:
                self._step(e, action)

    def _step(self, e: int, action: NDArray[np.float64]) -> None:
        env = self._envs[e]
        self._seen[e], reward, terminated, truncated, _ = env.step(_native(env.action_space, action))
        self._reward[e] = float(reward)
        self._terminated[e] = terminated
        self._is_over[e] = terminated or truncated
        self._done[e].append(action)

    def _image(self, env: gymnasium.Env) -> NDArray[np.uint8]:
        try:
            frame = env.render()
        except gymnasium.error.DependencyNotInstalled as error:
            raise _missing(self.name, error) from error
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
            raise DataError(
                f"{self.name} draws {type(frame).__name__}; expected an RGB image, uint8 [h, w, 3], of "
                'render_mode="rgb_array"'
            )
        size = (self.image_size, self.image_size)
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))


def _make(name: str) -> gymnasium.Env:
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # or pygame's library ignores SIGTERM from then on
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # images are drawn in memory: pygame needs no screen
    try:
        return gymnasium.make(name.removeprefix(PREFIX), render_mode="rgb_array")
    except gymnasium.error.DependencyNotInstalled as error:
        raise _missing(name, error) from error
    except (gymnasium.error.Error, ModuleNotFoundError, TypeError) as error:
        raise DataError(
            f"{name}: Gymnasium cannot make {name.removeprefix(PREFIX)!r} with render_mode='rgb_array': {error}"
        ) from error


def _missing(name: str, error: Exception) -> DataError:
    return DataError(f"{name}: {error}; for classic control: pip install 'openjepa[gym]'")


def _action_width(name: str, space: spaces.Space) -> int:
    """A, of a space of actions."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    bounds = _bounds(space)
    if bounds is not None and np.isfinite(bounds).all():
        return bounds[0].size
    raise DataError(
        f"{name} has actions {space}; expected a Box with finite bounds, Discrete, MultiDiscrete or MultiBinary"
    )


def _bounds(space: spaces.Space) -> NDArray[np.float64] | None:
    """The smallest and the largest action [2, ...] of a space of arrays; None of another one."""
    if isinstance(space, spaces.Box):
        return np.stack([space.low, space.high]).astype(np.float64)
    if isinstance(space, spaces.MultiDiscrete):
        return np.stack([space.start, space.start + space.nvec - 1]).astype(np.float64)
    if isinstance(space, spaces.MultiBinary):
        return np.stack([np.zeros(space.shape), np.ones(space.shape)])
    return None


def _native(space: spaces.Space, action: NDArray[np.float64]) -> Any:
    """Convert an action in -1..1 to that of the environment. Raises DataError if it is not finite."""
    if not np.isfinite(action).all():
        raise DataError(f"an action is {action.tolist()}; expected finite numbers, -1..1")
    if isinstance(space, spaces.Discrete):
        return int(space.start) + int(action.argmax())
    bounds = _bounds(space)
    assert bounds is not None and space.shape is not None and space.dtype is not None
    low, high = bounds
    share = (action.clip(-1, 1).reshape(space.shape) + 1) / 2
    if np.issubdtype(space.dtype, np.integer):  # each of the high - low + 1 values has an equal part of -1..1
        return np.minimum(np.floor(low + share * (high - low + 1)), high).astype(space.dtype)
    return (low + share * (high - low)).astype(space.dtype)


def _parts(space: spaces.Space, seen: Any, name: str = "observation") -> Iterator[tuple[str, spaces.Space, Any]]:
    """The vectors and numbers in an observation: name, space and value of each.

    In the order of the space, whatever that of the observation; images and other things are left out.
    """
    if isinstance(space, spaces.Dict):
        for key, part in space.items():
            yield from _parts(part, seen[key], f"{name}.{key}")
    elif isinstance(space, spaces.Tuple):
        for number, (part, value) in enumerate(zip(space.spaces, seen, strict=True)):
            yield from _parts(part, value, f"{name}.{number}")
    elif isinstance(space, NUMBERS) and len(space.shape or ()) <= 1:
        yield name, space, seen


def _names(space: spaces.Space, seen: Any) -> list[str]:
    parts = _parts(space, seen)
    return [".".join([name, *map(str, index)]) for name, part, _ in parts for index in np.ndindex(part.shape or ())]


def _flat(space: spaces.Space, seen: Any) -> NDArray[np.float64]:
    """An observation as `_names` names it, not rounded: whoever stores it looks at what float32 would lose."""
    return np.hstack([np.zeros(0), *(value for *_, value in _parts(space, seen))])
