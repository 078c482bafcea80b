"""Point mazes: push a ball through a maze to the position in a goal image.

D4RL's mazes (2004.07219), with the walls, ball and MuJoCo physics of Gymnasium-Robotics, seen from above. The goal is
an image, so its marker is not rendered. DINO-WM (2411.04983) plans in the first.

    ┌─────────────┐     ┌──────────────┐     action [2]   force on the ball in x and y, for 0.05 s: five steps of the
    │ ·  ·  ●     │     │ ··  ·· │ ··  │                  physics, as many as DINO-WM's
    │ █████████ · │     │ ·· █ ···  ·· │     state [4]    x, y in m from the maze's middle, vx, vy in m/s (5 at most);
    │ ×  ·  ·  ·  │     │ ██  ···█  ███│                  a cell is 1 m wide
    └─────────────┘     │   …      …   │     goal [2]     x, y; reached below 0.5 m, as in Gymnasium-Robotics
      point-maze-umaze  └──────────────┘
                          point-maze-medium
"""

from contextlib import redirect_stderr
from functools import cache, partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_data.worlds.maze_paths import MazePaths
from jepa_data.worlds.mujoco.base import Physics, Scene
from jepa_data.worlds.packages import needed
from jepa_data.worlds.waypoint_policy import WaypointBatch

MAZES = {"umaze": "U_MAZE", "medium": "MEDIUM_MAZE"}  # names in Gymnasium-Robotics
EXTRA = "maze"
STEPS = 5  # of the physics, 0.01 s each, for an action
FASTEST = 5.0  # m/s
HEIGHT = 0.4  # of the walls
OFFSET = 0.25  # m around the middle of a cell in which starts and goals lie
FAR = 2  # cells that a goal is away at least
NEAR = 0.5  # m of success
PULL, BRAKE = 4.0, 1.2  # of the script: force for a metre to go, and for a metre a second
GREEN = (0.5, 1.0, 0.4, 1.0)  # brighter than the original ball, which is two pixels wide in small images


class PointMazeBatch(WaypointBatch):
    """Parallel mazes.

    Args:
        maze: a key of MAZES.

    Raises:
        DataError: Gymnasium-Robotics or MuJoCo is not installed.
    """

    action_size = 2
    action_names = ("right", "up")
    fps = 20.0
    state_names = ("agent.x", "agent.y", "agent.vx", "agent.vy")
    goal_names = state_names[:2]
    radius = NEAR
    unit = "m"
    goal_draws = 3
    waypoint_radius = NEAR / 2
    noise = 0.3

    def __init__(self, maze: str, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> None:
        self.maze = maze
        self.name = f"point-maze-{maze}"
        self._paths, self._physics = _rules(maze)
        super().__init__(episodes, image_size=image_size, seed=seed)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        middles = self._paths.middles
        cell = rng.integers(len(middles))
        return np.concatenate([middles[cell] + rng.uniform(-OFFSET, OFFSET, 2), np.zeros(2)])

    def step(self, actions: NDArray[np.floating]) -> None:
        """Advance 0.05 s with actions [E, 2], clipped to -1..1."""
        force = np.asarray(actions, dtype=np.float64).clip(-1, 1)
        self.state = self._physics.step(self.state, force, STEPS)

    def render(self) -> NDArray[np.uint8]:
        """RGB images [E, size, size, 3]: walls are brown, the ball green."""
        return _scene(self.maze, self.image_size).draw(self.state[:, :2])

    def goal_at(self, point: NDArray[np.floating]) -> NDArray[np.float64]:
        """Places [E, 2] in the maze, in m; the camera looks down on its middle, and y points upwards."""
        return (np.asarray(point, dtype=np.float64) - 0.5) * (_across(self._paths), -_across(self._paths))

    def image_point(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(goal, dtype=np.float64) / (_across(self._paths), -_across(self._paths)) + 0.5

    def distance_to_goal(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """Path length [E] to `goal` [E, 2] in the maze, in m."""
        return self._paths.length(self.state[:, :2], np.asarray(goal, dtype=np.float64))

    def speed(self) -> NDArray[np.float64]:
        """Speeds of the balls [E], in m/s."""
        return np.linalg.norm(self.state[:, 2:], axis=-1)

    def expert(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """Forces [E, 2] towards the next cell on the path to `goal` [E, 2], with damping."""
        here = self.state[:, :2]
        way = self._paths.next_point(here, np.asarray(goal, dtype=np.float64)) - here
        return (PULL * way - BRAKE * self.state[:, 2:]).clip(-1, 1)

    def goals_from(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places [E, 2] in free cells, at least two cells away."""
        cell = self._paths.far_cells(self.state[:, :2], FAR, unit[:, 0])
        return self._paths.middles[cell] + OFFSET * (2 * unit[:, 1:] - 1)


@cache
def _rules(maze: str) -> tuple[MazePaths, Physics]:
    """Data shared by all episodes of a maze."""
    model, paths = _build(maze)
    return paths, Physics(f"point-maze-{maze}", model, EXTRA, FASTEST)


@cache
def _scene(maze: str, size: int) -> Scene:
    model, paths = _build(maze)
    model.site_rgba[model.site("target").id, 3] = 0  # the goal is an image
    model.site_rgba[model.site("particle_site").id] = GREEN
    return Scene(f"point-maze-{maze}", model, EXTRA, size, _across(paths))


def _across(paths: MazePaths) -> float:
    """Width of the image in m: the free cells, and half of the walls around them."""
    return 2 * np.abs(paths.middles).max() + 2 * paths.size


def _build(maze: str) -> tuple[Any, MazePaths]:
    """The MuJoCo model of a maze, and the paths through it."""
    world = f"point-maze-{maze}"
    mujoco = needed(world, "mujoco", EXTRA)
    with redirect_stderr(StringIO()):  # it prints a notice about other environments
        package = needed(world, "gymnasium_robotics", EXTRA)
        mazes = needed(world, "gymnasium_robotics.envs.maze.maze_v4", EXTRA)
        maps = needed(world, "gymnasium_robotics.envs.maze.maps", EXTRA)
    ball = Path(package.__file__).parent / "envs" / "assets" / "point" / "point.xml"
    plan = getattr(maps, MAZES[maze])
    _, written = mazes.Maze.make_maze(str(ball), plan, 1, HEIGHT)  # a temporary file, which it leaves behind
    try:
        model = mujoco.MjModel.from_xml_path(written)
    finally:
        Path(written).unlink()
    return model, MazePaths(np.array(plan) == 1)


umaze = partial(PointMazeBatch, "umaze")
medium = partial(PointMazeBatch, "medium")
