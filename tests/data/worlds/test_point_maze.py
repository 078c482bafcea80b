"""Point mazes: the physics is Gymnasium-Robotics', walls stop the ball, and ways lead around them."""

import importlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics", reason="point mazes need it: pip install 'openjepa[maze]'")

from jepa_data.errors import DataError
from jepa_data.worlds import make_goal_batch
from jepa_data.worlds.maze_paths import MazePaths
from jepa_data.worlds.mujoco import base as mujoco_world
from jepa_data.worlds.mujoco.point_maze import FAR, MAZES, PointMazeBatch


def placed(*goals: tuple[float, float], maze: str = "umaze") -> PointMazeBatch:
    world = PointMazeBatch(maze, np.arange(len(goals)))
    world.set_goal_state(np.array(goals, dtype=float))
    return world


def test_the_ball_moves_as_in_gymnasium_robotics() -> None:
    points = importlib.import_module("gymnasium_robotics.envs.maze.point_maze")
    env = points.PointMazeEnv(maze_map=importlib.import_module("gymnasium_robotics.envs.maze.maps").U_MAZE)
    env.reset(seed=0)
    world = placed((0.9, -1.1))
    env.point_env.set_state(world.states()[0, :2].astype(float), np.zeros(2))
    world.set_goal_state(env.point_env.data.qpos[None].copy())
    rng = np.random.default_rng(0)
    for _ in range(40):
        action = rng.uniform(-1, 1, 2)
        for _ in range(5):
            env.point_env.step(action)
        world.step(action[None])
        here = np.concatenate([env.point_env.data.qpos, env.point_env.data.qvel])
        np.testing.assert_allclose(world.state[0], here, atol=1e-6)  # it starts its solver warm, and we cold
    env.close()


def test_walls_stop_the_ball_and_nothing_is_faster_than_5_m_a_second() -> None:
    world = placed((-1.0, 1.0), (1.0, 1.0))
    for _ in range(60):
        world.step(np.array([[0.0, -1.0], [0.0, -1.0]]))
        assert (np.abs(world.states()[:, 2:]) <= 5.5).all()  # cut before each step of the physics, which adds to it
    stopped, through = world.goal_state()
    assert 0.5 < stopped[1] < 0.7, "on the wall below"
    assert -1.5 < through[1] < -1.3, "down the open side, to the border"


def test_the_way_through_the_maze_is_longer_than_the_crow_flies() -> None:
    world = placed((-1.0, 1.0), (1.0, 0.9), (0.0, 1.2))
    goal = np.array([[-1.0, -1.0], [1.0, 0.3], [-0.2, 0.9]])
    np.testing.assert_allclose(world.distance_to_goal(goal), [6, 0.6, np.hypot(0.2, 0.3)])
    np.testing.assert_allclose(world.distance(goal), [2, 0.6, np.hypot(0.2, 0.3)])


@pytest.mark.parametrize("maze", MAZES)
def test_goals_lie_in_free_cells_and_far_away(maze: str) -> None:
    world = make_goal_batch(f"point-maze-{maze}", np.arange(300))
    assert isinstance(world, PointMazeBatch)
    ways, goals = world._paths, world.draw_goals(np.random.default_rng(0))
    here, there = ways.cells(world.goal_state()), ways.cells(goals)
    assert (ways.steps[here, there] >= FAR).all() and len(set(there)) == len(ways.middles)
    assert (np.abs(goals - ways.middles[there]) <= 0.25).all()


def test_ways_are_shortest_and_go_from_cell_to_neighbor() -> None:
    plan = ["#######", "#..#..#", "#.##.##", "#.....#", "#######"]
    ways = MazePaths(np.array([[c == "#" for c in row] for row in plan]), size=2.0)
    steps = ways.steps
    assert (steps == steps.T).all() and steps.max() == 9 and len(steps) == 11
    beside = np.isclose(np.linalg.norm(ways.middles[:, None] - ways.middles, axis=-1), 2.0)
    np.testing.assert_array_equal(steps == 1, beside)
    powers = [np.linalg.matrix_power(beside + np.eye(11, dtype=int), k) > 0 for k in range(10)]
    np.testing.assert_array_equal(steps, sum(~power for power in powers).astype(int))  # an oracle: reached within k
    walked = ways.length(np.repeat(ways.middles, 11, 0), np.tile(ways.middles, (11, 1))).reshape(11, 11)
    np.testing.assert_allclose(walked, 2.0 * steps)
    outside = np.array([[-100.0, 100.0], [0.0, 2.0]])  # beyond the border, and in a wall: the nearest free cell's
    assert (ways.cells(outside) >= 0).all()


def test_images_show_the_ball_where_it_is_and_no_marker_of_a_goal() -> None:
    images = placed((-1.0, 1.0), (1.0, 1.0), (1.0, -1.0)).render().astype(int)
    green = images[..., 1] - images[..., 0]
    at = np.array([np.unravel_index(g.argmax(), g.shape) for g in green])
    np.testing.assert_allclose(at, [[16, 16], [16, 48], [48, 48]], atol=3)
    red = (images[..., 0] > 1.8 * images[..., 1]).sum((1, 2))
    assert (red == 0).all()
    changed = (images[0] != images[1]).any(-1)
    assert 8 < changed.sum() < 200 and images[0].std() > 30


def test_the_policies_cover_the_maze_and_stay_in_the_box() -> None:
    for policy, visited in (("random", 4), ("noisy-expert", 5)):
        world = PointMazeBatch("umaze", np.arange(32))
        generators = [np.random.default_rng(e) for e in range(32)]
        actions = world.act(policy, generators, 100)
        assert actions.shape == (32, 99, 2) and np.abs(actions).max() <= 1
        alone = PointMazeBatch("umaze", np.array([7])).act(policy, [np.random.default_rng(7)], 100)
        np.testing.assert_array_equal(alone[0], actions[7])
        cells = []
        for t in range(99):
            world.step(actions[:, t])
            cells.append(world._paths.cells(world.goal_state()))
        assert np.mean([len(set(column)) for column in np.array(cells).T]) > visited


def test_where_nothing_can_be_drawn_the_packages_to_install_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mujoco_world, "_why_not", mujoco_world._why_not.__wrapped__)  # do not remember what is tried
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYOPENGL_PLATFORM", "glx")  # neither EGL nor OSMesa can load beside it
    with pytest.raises(
        DataError, match=r"a maze is drawn by OpenGL.*egl: .*; osmesa: .*apt install libegl1 .*libosmesa6"
    ):
        mujoco_world.gl_context("a maze")
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    with pytest.raises(DataError, match=r"with MUJOCO_GL=vulkan .*expected one of egl, osmesa, glfw"):
        mujoco_world.gl_context("a maze")


def test_a_display_that_is_not_there_does_not_keep_the_others_from_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mujoco_world, "_why_not", mujoco_world._why_not.__wrapped__)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setenv("DISPLAY", ":99")
    try:
        found = mujoco_world.gl_context("a maze")
    except DataError as error:
        pytest.skip(str(error))
    assert found.__module__ in ("mujoco.egl", "mujoco.osmesa")


def test_without_a_setting_a_machine_without_display_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if os.name != "posix":
        pytest.skip("only Linux is without a display")
    world = make_goal_batch("point-maze-medium", np.arange(2), image_size=48)
    try:
        images = world.render()
    except DataError as error:
        pytest.skip(str(error))
    assert (images.std((1, 2, 3)) > 30).all() and (images[0] != images[1]).any()


def test_another_thread_is_reported_to_draw_elsewhere_and_so_is_a_forked_process() -> None:
    world = placed((1.0, 1.0))
    try:
        world.render()
    except DataError as error:
        pytest.skip(str(error))
    with ThreadPoolExecutor(1) as pool, pytest.raises(DataError, match="Draw in one thread"):
        pool.submit(world.render).result()
    program = (  # in a process of its own, which has no other threads that a fork would leave behind
        "import os, numpy as np\n"
        "from jepa_data.worlds import make_batch\n"
        "world = make_batch('point-maze-umaze', np.arange(1))\n"
        "world.render()\n"
        "if os.fork():\n"
        "    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "try:\n"
        "    world.render()\n"
        "except Exception as error:\n"
        "    os._exit(7 if 'start processes by spawn' in str(error) else 1)\n"
        "os._exit(0)\n"
    )
    root = Path(__file__).parents[3]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(str(root / part) for part in ("", "data"))}
    assert subprocess.run([sys.executable, "-c", program], env=env, check=False, timeout=120).returncode == 7
