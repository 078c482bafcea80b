"""A cue, a corridor and a fork: which side is right is shown in the first frames only.

    t = 0 … 2       ┌────────────┐     the upper or the lower lamp is lit: the cue
                    │ •        ■ │     the walker, seen from above, is carried along; an action moves it up or down
    3 … length      │ •          │     the corridor: walls whose tiles pass
    length-5 …      │ •        ══│     the fork comes near: who is above the middle goes up, else down
    length+1 …      ▓▓▓▓▓▓▓▓▓▓▓▓▓▓     a room, gold on the side of the cue and gray on the other; it stays

The goal image is the gold room. It shows neither the side nor the cue, so only a memory as long as the corridor tells
where to go: without one, half of all tasks are solved. Both rooms look the same wherever the walker was.

    cue-corridor        lengths from 4 to 100 steps, short ones more often (log-uniform): to learn from
    cue-corridor-10     10 steps
    cue-corridor-100    100 steps
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from jepa_data.worlds.base import GoalBatch

CUE_FRAMES = 3
FORK_FRAMES = 6  # before the room in which the fork shows
SPEED = 0.4  # half widths of the corridor that an action of 1 moves the walker by
TILE = 8  # steps until the tiles of the walls look the same again
LENGTHS = (4, 100)
GOLD, GRAY = (230, 190, 40), (120, 120, 120)
LAMP, FORK, WALKER = (60, 120, 255), (180, 60, 160), (235, 235, 235)
WALL = 0.12  # of the image's height, above and below
HALF_LAMP, HALF_WALKER = 0.16, 0.07  # of the image's width
WALKER_X, LAMP_X = 0.2, 0.75


@dataclass
class Walks:
    """State of parallel episodes."""

    y: NDArray[np.float64]  # [E] of the walker: -1 is the lower wall, 1 the upper one
    step: NDArray[np.int64]  # [E] steps taken
    length: NDArray[np.int64]  # [E] steps to the fork
    cue: NDArray[np.int64]  # [E] 1: up, 0: down
    room: NDArray[np.int64]  # [E] 0 in the corridor, 1 in the gold room, -1 in the gray one


class CueCorridorBatch(GoalBatch):
    """Parallel episodes; `lengths`: the shortest and the longest corridor, in steps."""

    action_size = 1
    action_names = ("up",)
    image_sizes = (32, 128)
    label_names = ("cue",)
    state_names = ("walker.y", "steps_to_fork", "room")
    goal_names = ("room",)
    radius = 0.5
    unit = "rooms (corridor 0, gold 1, gray -1)"
    state: Walks

    def __init__(
        self,
        name: str,
        lengths: tuple[int, int],
        episodes: NDArray[np.integer],
        *,
        image_size: int = 64,
        seed: int = 0,
    ) -> None:
        self.name = name
        self.lengths = lengths
        super().__init__(episodes, image_size=image_size, seed=seed)

    def draw(self, rng: np.random.Generator) -> Walks:
        low, high = self.lengths
        length = int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))
        return Walks(
            y=np.array(rng.uniform(-1, 1)),
            step=np.array(0),
            length=np.array(min(length, high)),
            cue=np.array(rng.integers(2)),
            room=np.array(0),
        )

    def step(self, actions: NDArray[np.floating]) -> None:
        """One step along the corridor; an action [E, 1] moves the walker sideways."""
        s = self.state
        walking = s.room == 0
        moved = s.y + SPEED * np.asarray(actions, dtype=np.float64)[:, 0].clip(-1, 1)
        s.y = np.where(walking, moved.clip(-1, 1), s.y)
        s.step = s.step + walking
        arrives = walking & (s.step > s.length)
        right = (s.y > 0) == (s.cue == 1)
        s.room = np.where(arrives, np.where(right, 1, -1), s.room)

    def states(self) -> NDArray[np.float32]:
        """True states [E, 3] with the columns `state_names`."""
        s = self.state
        return np.column_stack([s.y, np.maximum(s.length + 1 - s.step, 0), s.room]).astype(np.float32)

    def draw_goals(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """The gold room [E, 1]."""
        return np.ones((len(self), 1))

    def goal_state(self) -> NDArray[np.float64]:
        """Where each walker is [E, 1]: in the corridor (0), in the gold room (1), in the gray one (-1)."""
        return self.state.room[:, None].astype(np.float64)

    def set_goal_state(self, goal: NDArray[np.floating]) -> None:
        """Put the walkers into a room, or into the corridor."""
        self.state.room = np.asarray(goal)[:, 0].round().astype(np.int64)

    def expert(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """Steers to the side of the cue, or to the other one if the goal is the gray room."""
        towards = np.where(self.state.cue == 1, 1.0, -1.0) * np.where(goal[:, 0] < 0, -1, 1)
        return towards[:, None]

    def render(self) -> NDArray[np.uint8]:
        """RGB images [E, size, size, 3]."""
        s = self.state
        at = (np.arange(self.image_size) + 0.5) / self.image_size
        right, down = np.meshgrid(at, at)
        image = np.zeros((len(self), *right.shape, 3), np.uint8)
        passed = (right + s.step[:, None, None] / TILE) % 1
        brightness = 60 + 100 * (passed < 0.5)
        wall = (down < WALL) | (down > 1 - WALL)
        image[:] = np.where(wall, brightness, 20)[..., None]
        forks = (s.length - s.step < FORK_FRAMES)[:, None, None]
        left = 0.5 + 0.08 * (s.length - s.step)[:, None, None]
        image[forks & (right > left) & (np.abs(down - 0.5) < 0.06)] = FORK
        lamp_y = np.where(s.cue == 1, 0.3, 0.7)[:, None, None]
        lit = (s.step < CUE_FRAMES)[:, None, None]
        image[lit & (np.abs(right - LAMP_X) < HALF_LAMP) & (np.abs(down - lamp_y) < HALF_LAMP)] = LAMP
        height = 0.5 - s.y[:, None, None] * (0.5 - WALL - HALF_WALKER)
        image[(np.abs(right - WALKER_X) < HALF_WALKER) & (np.abs(down - height) < HALF_WALKER)] = WALKER
        image[s.room == 1] = GOLD
        image[s.room == -1] = GRAY
        return image


cue_corridor = partial(CueCorridorBatch, "cue-corridor", LENGTHS)
cue_corridor_10 = partial(CueCorridorBatch, "cue-corridor-10", (10, 10))
cue_corridor_100 = partial(CueCorridorBatch, "cue-corridor-100", (100, 100))
