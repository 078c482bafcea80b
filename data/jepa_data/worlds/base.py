"""The base classes of worlds: `WorldBatch` can be recorded, `GoalBatch` also sets tasks.

A batch is E parallel episodes of a world. An episode is drawn from (seed, episode number), and then depends only on its
actions and events: not on system time, nor on the other episodes.

`state` contains all that changes or differs between episodes: an array [E, ...], or a dataclass of such arrays. The
base class draws and copies it. The smallest world with goals has eight members:

    name, action_size, state_names, goal_names, radius      attributes
    draw(rng)                                               one episode
    step(actions), render()                                 all episodes

A world may have named events, such as `close-door`: `events` names them, and `happen` changes the state. Without
events, an episode is what it would be in a world that has none.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from jepa_data.events import check_numbers
from jepa_data.spatial.kinds import SpatialInfo
from jepa_data.worlds import rows


def episode_generator(seed: int, episode: int) -> np.random.Generator:
    """The random generator of one episode: the same on every machine, independent of other episodes."""
    return np.random.Generator(np.random.Philox(key=[seed, episode]))


class WorldBatch(ABC):
    """A world that can be recorded.

    Args:
        episodes: episode numbers; with `seed`, they determine an episode except its actions.
        image_size: of the square images, in pixels.

    Attributes:
        action_size: A; actions are in -1..1.
        action_names: what +1 of each number of an action does, such as "right"; empty if nothing is said.
        fps: images and actions per second.
        version: increased when the same (seed, episode, actions) no longer give the same images.
        policies: policies for recordings; the first is the default.
        state_names: the columns of `states()`; empty if the world has no true states.
        label_names: of whole episodes. The state has a field [E] for each name.
        image_sizes: minimum and maximum image size.
        events: names of what `trigger` can make happen; empty if the world has no events.
        longest_repeat: maximum number of frames for which the random policy repeats an action.
        spatial_infos: masks, depth or keypoints that `spatial` computes, see `jepa_data.spatial.kinds`.
        state: of the episodes, see `rows.py`.

    A `cached_property` may cache constants derived from the state, such as a background; copies compute it again, and
    so does a batch after an event.
    """

    name: str
    action_size: int
    action_names: tuple[str, ...] = ()
    fps: float = 10.0
    version: int = 1
    policies: tuple[str, ...] = ("random",)
    state_names: Sequence[str] = ()
    label_names: Sequence[str] = ()
    events: Sequence[str] = ()
    image_sizes: ClassVar[tuple[int, int]] = (32, 256)
    longest_repeat: ClassVar[int] = 8
    state: Any

    def __init__(self, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> None:
        low, high = self.image_sizes
        if not low <= image_size <= high:
            raise ValueError(f"image_size is {image_size}; {self.name} is drawn at {low} to {high} pixels")
        self.image_size = image_size
        self.state = rows.stack(
            [self.draw(episode_generator(seed, episode)) for episode in np.asarray(episodes).tolist()]
        )

    def __len__(self) -> int:
        return rows.count(self.state)

    @property
    def labels(self) -> dict[str, NDArray[np.int64]]:
        """Labels of whole episodes: [E] by name."""
        return {name: getattr(self.state, name) for name in self.label_names}

    @property
    def spatial_infos(self) -> tuple[SpatialInfo, ...]:
        return ()

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Any:
        """The initial state of one episode, without the batch dimension."""

    @abstractmethod
    def step(self, actions: NDArray[np.floating]) -> None:
        """One frame under actions [E, A]. Episodes that have ended stay as they are."""

    @abstractmethod
    def render(self) -> NDArray[np.uint8]:
        """RGB images [E, size, size, 3] of the current state; does not change the state."""

    def trigger(self, events: NDArray[np.integer]) -> None:
        """Let at most one event happen in each episode, right before the step of the same index.

        An event that makes no sense in a state, such as closing a closed door, does nothing. Its effect stays in the
        state, and copies have it.

        Args:
            events: [E], 0 for none, k for the event `self.events[k - 1]`.

        Raises:
            DataError: the world has no event of such a number.
        """
        numbers = np.asarray(events)
        check_numbers(numbers, self.events, self.name)
        if numbers.shape != (len(self),):
            raise ValueError(f"{self.name}: expected an event for each of {len(self)} episodes, found {numbers.shape}")
        for number in map(int, np.unique(numbers[numbers > 0])):
            self.happen(self.events[number - 1], np.flatnonzero(numbers == number))
            self._forget_constants()

    def happen(self, event: str, episodes: NDArray[np.intp]) -> None:
        """Change the state of these episodes as one of the `events` does; worlds with events define it."""
        raise NotImplementedError(f"{self.name} does not say what {event} does")

    def states(self) -> NDArray[np.floating]:
        """True states [E, X] with the columns `state_names`; by default the state array as float32.

        Worlds that need more precision return float64; writing shards raises an error if float32 would lose it.
        """
        if not self.state_names:
            return np.zeros((len(self), 0), np.float32)
        return self.state.astype(np.float32)

    def spatial(self, kind: str) -> NDArray[Any]:
        """What belongs to the images of the current state, without noise or anti-aliasing; one of `spatial_infos`.

        A mask or depth is [E, size, size], keypoints are [E, K, 3].
        """
        raise NotImplementedError(f"{self.name} computes no {kind}")

    def terminated(self) -> NDArray[np.bool_]:
        """Which episodes have ended [E]; their recordings stop. By default, none."""
        return np.zeros(len(self), dtype=bool)

    def take(self, index: NDArray[np.intp]) -> Self:
        """An independent copy of the chosen episodes in their current state; repeats are allowed."""
        other = copy(self)
        other._forget_constants()
        other.state = rows.take(self.state, index)
        return other

    def _forget_constants(self) -> None:
        """Drop what a `cached_property` holds."""
        for name in list(vars(self)):
            if isinstance(getattr(type(self), name, None), cached_property):
                delattr(self, name)

    def act(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """Actions [E, frames-1, A] of one of the `policies` from the current state, with a generator per episode.

        The batch is not changed.
        """
        if policy not in self.policies:
            raise ValueError(f"{self.name} has the policies {', '.join(self.policies)}, found {policy!r}")
        return self.policy_actions(policy, generators, frames)

    def policy_actions(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """The actions for `act`; by default random, repeated for several frames so that they do not cancel out."""
        actions = np.zeros((len(generators), frames - 1, self.action_size), np.float32)
        for row, rng in zip(actions, generators, strict=True):
            at = 0
            while at < frames - 1:
                count = rng.integers(1, self.longest_repeat + 1)
                row[at : at + count] = self.random_action(rng)
                at += count
        return actions

    def random_action(self, rng: np.random.Generator) -> NDArray[np.floating]:
        """An action [A] of the random policy; by default uniform in -1..1."""
        return rng.uniform(-1, 1, self.action_size)


class GoalBatch(WorldBatch):
    """A world that sets tasks: reach a goal [E, G].

    The defaults suit a world whose state is an array and whose goal is its first G columns.

    Attributes:
        radius: success is a distance below it, in `unit`.
        goal_names: the columns of a goal.
        copies: whether `take` is cheap enough to plan on copies of the world.
        has_pose: whether a goal is a pose in the plane: x, y and heading in radians.
    """

    radius: float
    unit: str = "units of the state"
    goal_names: tuple[str, ...]
    copies: bool = True
    has_pose: bool = False

    @property
    def has_expert(self) -> bool:
        """Whether `expert` solves tasks."""
        return type(self).expert is not GoalBatch.expert

    def draw_goals(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Reachable goals [E, G], one for each episode. By default, drawn like starts."""
        elsewhere = copy(self)
        elsewhere.state = rows.stack([self.draw(rng) for _ in range(len(self))])
        return elsewhere.goal_state()

    def goal_state(self) -> NDArray[np.float64]:
        """The goal [E, G] that the current state reaches."""
        return self.state[:, : len(self.goal_names)].copy()

    def set_goal_state(self, goal: NDArray[np.floating]) -> None:
        """Set the state to a goal [E, G], at rest, to render the goal image.

        By default, all other columns of the state become 0.
        """
        rest = self.state.shape[1] - len(self.goal_names)
        self.state = np.column_stack([np.asarray(goal, dtype=np.float64), np.zeros((len(goal), rest))])

    def distance(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distance [E] of the current state to a goal [E, G], in `unit`. By default, the straight-line distance."""
        return np.linalg.norm(self.goal_state() - goal, axis=-1)

    def goal_at(self, point: NDArray[np.floating]) -> NDArray[np.float64] | None:
        """The goals [E, G] at places [E, 2] in the image, in widths of it, y downwards. None: a place is no goal there.

        What a place does not say stays as it is now, such as the turn of a T.
        """
        return None

    def image_point(self, goal: NDArray[np.floating]) -> NDArray[np.float64] | None:
        """Where goals [E, G] are in the image [E, 2], the inverse of `goal_at`; None if that is."""
        return None

    def distance_to_goal(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The cost [E] for planners on the true simulator: the length of a feasible path to the goal."""
        return self.distance(goal)

    def speed(self) -> NDArray[np.float64]:
        """Speed [E] of the object that must stop at the goal; 0 by default."""
        return np.zeros(len(self))

    def expert(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The next action [E, A] of the expert policy, which reads the true state; only with `has_expert`."""
        raise NotImplementedError(f"no script is known that solves {self.name}")
