"""What a world promises: a part for recording, and a part for tasks.

A batch is many episodes of a world side by side; E of them. An episode is drawn from (seed, episode number) alone,
and what it does then is a function of its actions alone: not of the clock, nor of the episodes beside it.
"""

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray


class WorldBatch(Protocol):
    """A world that can be recorded, and acted in.

    Attributes:
        image_size: pixels a side of its pictures.
        action_size: A; actions are in -1..1.
        fps: pictures and actions a second.
        version: raised when the same (seed, episode, actions) no longer give the same pictures.
        policies: who can record data, the first by default.
        labels: of whole episodes, as int [E] by name.
        state_names: the columns of `states()`; empty where the world tells no state.
    """

    name: str
    image_size: int
    action_size: int
    fps: float
    version: int
    policies: tuple[str, ...]
    labels: dict[str, NDArray[np.int64]]

    @property
    def state_names(self) -> Sequence[str]: ...

    @property
    def label_names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def states(self) -> NDArray[np.floating]:
        """Ground truth [E, X]."""
        ...

    def step(self, actions: NDArray[np.floating]) -> None:
        """One frame under actions [E, A]. Episodes that have ended stay as they are."""
        ...

    def terminated(self) -> NDArray[np.bool_]:
        """Which episodes are over [E]: a recording of them stops there."""
        ...

    def render(self) -> NDArray[np.uint8]:
        """RGB pictures [E, size, size, 3] of the present state; looking changes nothing."""
        ...

    def take(self, index: NDArray[np.intp]) -> Self:
        """An independent copy of the chosen episodes in their present state, repeats allowed."""
        ...

    def act(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """Actions [E, frames-1, A] of one of the `policies` from here on, from a generator for each episode.

        The batch itself is left as it is.
        """
        ...


class GoalBatch(WorldBatch, Protocol):
    """A world that sets tasks: get to where a goal [E, G] is reached.

    Attributes:
        radius: success is a distance below it, in `unit`.
        goal_names: the columns of a goal.
        has_expert: whether `expert` solves tasks.
        copies: whether `take` is cheap enough to plan on copies of the world.
    """

    radius: float
    unit: str
    has_expert: bool
    copies: bool

    @property
    def goal_names(self) -> Sequence[str]: ...

    def draw_goals(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Goals [E, G] that can be reached, one for each episode."""
        ...

    def goal_state(self) -> NDArray[np.float64]:
        """The goal [E, G] that the present state reaches."""
        ...

    def set_goal_state(self, goal: NDArray[np.floating]) -> None:
        """Go to where a goal [E, G] is reached, at rest: what is rendered then is the picture of the goal."""
        ...

    def distance(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """How far [E] the present state is from a goal [E, G], in `unit`."""
        ...

    def distance_to_goal(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """What [E] a planner that is told the truth makes small: the distance along a way that can be gone."""
        ...

    def speed(self) -> NDArray[np.float64]:
        """How fast [E] the thing is that shall come to rest at the goal; 0 if nothing moves by itself."""
        ...

    def expert(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The next action [E, A] of a scripted agent that knows the true state; asked only of a world that has one."""
        ...
