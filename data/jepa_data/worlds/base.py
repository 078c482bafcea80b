"""The base classes of worlds: `WorldBatch` can be recorded and acted in, `GoalBatch` sets tasks as well.

A batch is many episodes of a world side by side; E of them. An episode is drawn from (seed, episode number) alone,
and what it does then is a function of its actions alone: not of the clock, nor of the other episodes.

A world keeps all that changes, and all that differs between episodes, in `state`: an array [E, ...], or a dataclass of
such arrays. The base class draws it, copies it and counts it. The smallest world with goals has eight members:

    name, action_size, state_names, goal_names, radius      what it is
    draw(rng)                                               one episode
    step(actions), render()                                 all episodes
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from jepa_data.worlds import rows


def episode_generator(seed: int, episode: int) -> np.random.Generator:
    """The random numbers of one episode: the same on every machine, whichever episodes run beside it."""
    return np.random.Generator(np.random.Philox(key=[seed, episode]))


class WorldBatch(ABC):
    """A world that can be recorded, and acted in.

    Args:
        episodes: episode numbers; with `seed` they fix everything about an episode but its actions.
        image_size: pixels a side of its images.

    Attributes:
        action_size: A; actions are in -1..1.
        fps: images and actions a second.
        version: raised when the same (seed, episode, actions) no longer give the same images.
        policies: who can record data, the first by default.
        state_names: the columns of `states()`; empty where the world has no ground truth.
        label_names: of whole episodes. The state has a field [E] of each of these names.
        image_sizes: the smallest and the largest image that it draws.
        longest_repeat: frames for which the random policy repeats an action at most.
        state: of the episodes, see `rows.py`.

    A `cached_property` may keep what follows from the state and never changes, such as a painted background: a copy
    computes it again.
    """

    name: str
    action_size: int
    fps: float = 10.0
    version: int = 1
    policies: tuple[str, ...] = ("random",)
    state_names: Sequence[str] = ()
    label_names: Sequence[str] = ()
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
        """Of whole episodes: [E] by name."""
        return {name: getattr(self.state, name) for name in self.label_names}

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Any:
        """The state of one episode at its start: that of a batch without its first dimension."""

    @abstractmethod
    def step(self, actions: NDArray[np.floating]) -> None:
        """One frame under actions [E, A]. Episodes that have ended stay as they are."""

    @abstractmethod
    def render(self) -> NDArray[np.uint8]:
        """RGB images [E, size, size, 3] of the present state; rendering changes nothing."""

    def states(self) -> NDArray[np.floating]:
        """Ground truth [E, X] as named by `state_names`: by default all of a state that is an array, as float32.

        A world whose numbers float32 is too coarse for returns float64: shards refuse what they would lose.
        """
        if not self.state_names:
            return np.zeros((len(self), 0), np.float32)
        return self.state.astype(np.float32)

    def terminated(self) -> NDArray[np.bool_]:
        """Which episodes are over [E]: a recording of them stops there. None ends by default."""
        return np.zeros(len(self), dtype=bool)

    def take(self, index: NDArray[np.intp]) -> Self:
        """An independent copy of the chosen episodes in their present state, repeats allowed."""
        other = copy(self)
        for name in list(vars(other)):
            if isinstance(getattr(type(other), name, None), cached_property):
                delattr(other, name)
        other.state = rows.take(self.state, index)
        return other

    def act(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """Actions [E, frames-1, A] of one of the `policies` from here on, from a generator for each episode.

        The batch itself is left as it is.
        """
        if policy not in self.policies:
            raise ValueError(f"{self.name} has the policies {', '.join(self.policies)}, found {policy!r}")
        return self.policy_actions(policy, generators, frames)

    def policy_actions(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """What `act` returns. By default random actions, each repeated for a while: otherwise they would cancel out."""
        actions = np.zeros((len(generators), frames - 1, self.action_size), np.float32)
        for row, rng in zip(actions, generators, strict=True):
            at = 0
            while at < frames - 1:
                count = rng.integers(1, self.longest_repeat + 1)
                row[at : at + count] = self.random_action(rng)
                at += count
        return actions

    def random_action(self, rng: np.random.Generator) -> NDArray[np.floating]:
        """An action [A] of the random policy: by default drawn evenly from -1..1."""
        return rng.uniform(-1, 1, self.action_size)


class GoalBatch(WorldBatch):
    """A world that sets tasks: get to where a goal [E, G] is reached.

    The defaults suit a world whose state is an array and whose goal is its first G columns.

    Attributes:
        radius: success is a distance below it, in `unit`.
        goal_names: the columns of a goal.
        copies: whether `take` is cheap enough to plan on copies of the world.
    """

    radius: float
    unit: str = "units of the state"
    goal_names: tuple[str, ...]
    copies: bool = True

    @property
    def has_expert(self) -> bool:
        """Whether `expert` solves tasks."""
        return type(self).expert is not GoalBatch.expert

    def draw_goals(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Goals [E, G] that can be reached, one for each episode. By default, drawn as starts are."""
        elsewhere = copy(self)
        elsewhere.state = rows.stack([self.draw(rng) for _ in range(len(self))])
        return elsewhere.goal_state()

    def goal_state(self) -> NDArray[np.float64]:
        """The goal [E, G] that the present state reaches."""
        return self.state[:, : len(self.goal_names)].copy()

    def set_goal_state(self, goal: NDArray[np.floating]) -> None:
        """Go to where a goal [E, G] is reached, at rest: what is rendered then is the image of the goal.

        By default all other columns of the state become 0.
        """
        rest = self.state.shape[1] - len(self.goal_names)
        self.state = np.column_stack([np.asarray(goal, dtype=np.float64), np.zeros((len(goal), rest))])

    def distance(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """How far [E] the present state is from a goal [E, G], in `unit`. By default in a straight line."""
        return np.linalg.norm(self.goal_state() - goal, axis=-1)

    def distance_to_goal(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The cost [E] of a planner that knows the true state: the length of a path to the goal that can be taken."""
        return self.distance(goal)

    def speed(self) -> NDArray[np.float64]:
        """How fast [E] the thing moves that must come to rest at the goal; 0 by default: nothing moves by itself."""
        return np.zeros(len(self))

    def expert(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The next action [E, A] of a scripted agent that knows the true state; only worlds with `has_expert`."""
        raise NotImplementedError(f"no script is known that solves {self.name}")
