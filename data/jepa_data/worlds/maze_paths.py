"""Shortest paths through a maze of square cells: the next cell, and the distance.

┌───┬───┬───┐     The path from `here` to `goal` goes through the middles of cells:
│ h ├ → ┤ ↓ │     here → middle of the next cell → … → middle of the last but one → goal.
├───┼───┤   │     In the goal's own cell and the one before it is a straight line, which meets no wall.
│ g ├ ← ┤ ← │
└───┴───┴───┘
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

NEIGHBORS = ((-1, 0), (1, 0), (0, -1), (0, 1))


class MazePaths:
    """Shortest paths between all free cells.

    Args:
        walls: [rows, columns]; true where there is a wall. Its border must be walls, and all free cells connected.
        size: the side of a cell. Coordinates are those of the maze's middle; x points to the right, y upwards.
    """

    def __init__(self, walls: NDArray[np.bool_], size: float = 1.0) -> None:
        self.size = size
        self._shape = walls.shape
        rows, columns = walls.shape
        free = np.argwhere(~walls)
        self.middles = np.column_stack([free[:, 1] + 0.5 - columns / 2, rows / 2 - free[:, 0] - 0.5]) * size
        self._number = np.full(walls.shape, -1)
        self._number[tuple(free.T)] = np.arange(len(free))
        self.steps = np.zeros((len(free), len(free)), dtype=np.intp)  # from cell to cell
        self._towards = np.full_like(self.steps, -1)  # [from, to]: the next cell
        neighbors = self._number[tuple((free[:, None] + NEIGHBORS).T)].T.tolist()
        for goal in range(len(free)):
            self._search(goal, neighbors)

    def cells(self, position: NDArray[np.floating]) -> NDArray[np.intp]:
        """The cell [E] of each position [E, 2]; of one inside a wall the nearest."""
        number = self._number[self.row_column(position)]
        near = np.linalg.norm(position[:, None] - self.middles, axis=-1).argmin(1)
        return np.where(number >= 0, number, near)

    def is_free(self, position: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which positions [E, 2] are not in a wall."""
        return self._number[self.row_column(position)] >= 0

    def far_cells(self, position: NDArray[np.floating], min_steps: int, unit: NDArray[np.floating]) -> NDArray[np.intp]:
        """A cell [E] at a minimum distance from each position; numbers [E] in 0..1 choose uniformly."""
        far = self.steps[self.cells(position)] >= min_steps
        wanted = np.minimum(np.floor(unit * far.sum(1)).astype(int), far.sum(1) - 1)
        return (far.cumsum(1) == wanted[:, None] + 1).argmax(1)

    def next_point(self, position: NDArray[np.floating], goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The next point [E, 2] on the path from each position to its goal, in a straight line."""
        here, there = self.cells(position), self.cells(goal)
        near = self.steps[here, there] <= 1
        return np.where(near[:, None], goal, self.middles[self._towards[here, there]])

    def length(self, position: NDArray[np.floating], goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """Length [E] of the path."""
        here, there = self.cells(position), self.cells(goal)
        steps = self.steps[here, there]
        to_first = np.linalg.norm(self.middles[self._towards[here, there]] - position, axis=-1)
        from_last = np.linalg.norm(goal - self.middles[self._towards[there, here]], axis=-1)
        around = to_first + np.maximum(steps - 2, 0) * self.size + from_last
        return np.where(steps <= 1, np.linalg.norm(goal - position, axis=-1), around)

    def row_column(self, position: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Row and column [E]; of a position outside those of the border."""
        rows, columns = self._shape
        column = np.floor(position[:, 0] / self.size + columns / 2).astype(np.intp).clip(0, columns - 1)
        return np.floor(rows / 2 - position[:, 1] / self.size).astype(np.intp).clip(0, rows - 1), column

    def _search(self, goal: int, neighbors: list[list[int]]) -> None:
        """Breadth first from one cell to all; a neighbor below 0 is a wall."""
        self._towards[goal, goal] = goal
        queue = deque([goal])
        while queue:
            here = queue.popleft()
            for other in neighbors[here]:
                if other >= 0 and self._towards[other, goal] < 0:
                    self._towards[other, goal] = here
                    self.steps[other, goal] = self.steps[here, goal] + 1
                    queue.append(other)
