"""doom-rooms: images are a function of the pose, walls stop the walker, and the map is the plan."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vizdoom", reason="doom-rooms needs vizdoom: pip install 'openjepa[doom]'")

from jepa_data.errors import DataError
from jepa_data.worlds.doom.map import CELL, PLAN, wad, wall_cells
from jepa_data.worlds.doom.rooms import BODY, FAR, STEP, TURN, DoomRoomsBatch

WEST, EAST = (-256.0, 256.0), (256.0, 256.0)  # the middles of rooms a and b


def placed(*goals: tuple[float, float, float]) -> DoomRoomsBatch:
    world = DoomRoomsBatch(np.arange(len(goals)), image_size=32)
    world.set_goal_state(np.array(goals, dtype=float))
    return world


def test_forward_is_where_the_walker_looks_and_left_is_beside_it() -> None:
    world = placed((*WEST, 0.0), (*WEST, np.pi / 2), (*WEST, np.pi / 4), (*WEST, 0.0))
    world.step(np.array([[1, 0, 0.5], [0, 1, 0], [1, 0, 0], [1, 1, -1]]))
    diagonal = STEP / np.sqrt(2)
    moved = world.goal_state()[:, :2] - WEST
    np.testing.assert_allclose(moved, [[STEP, 0], [-STEP, 0], [diagonal, diagonal], [diagonal, diagonal]], atol=1e-9)
    turned = world.goal_state()[:, 2]
    np.testing.assert_allclose(turned, [TURN / 2, np.pi / 2, np.pi / 4, 2 * np.pi - TURN], atol=1e-9)


def test_walls_stop_what_goes_into_them_and_let_slide_along() -> None:
    world = placed((*WEST, np.pi / 4))
    for _ in range(40):
        world.step(np.array([[1.0, 0.0, 0.0]]))
    x, y, _ = world.goal_state()[0]
    corner = np.array([-CELL / 2 - BODY, 448 - BODY])  # of room a, towards north and east
    assert (np.array([x, y]) <= corner).all() and (np.array([x, y]) > corner - STEP).all()


def test_doors_lead_from_room_to_room_and_the_rest_is_wall() -> None:
    through = placed((*WEST, 0.0), (WEST[0], WEST[1] + 100, 0.0))
    for _ in range(20):
        through.step(np.array([[1.0, 0, 0], [1.0, 0, 0]]))
    assert through.goal_state()[0, 0] > CELL > 0 > through.goal_state()[1, 0]


def test_an_image_is_a_function_of_the_pose_whatever_was_drawn_before() -> None:
    rng = np.random.default_rng(0)
    poses = DoomRoomsBatch(np.arange(40)).draw_goals(rng)
    first = placed(*poses).render()
    order = rng.permutation(40)
    np.testing.assert_array_equal(placed(*poses[order]).render(), first[order])
    for turns in (-2, 1):
        again = placed(*poses)
        again.set_goal_state(poses + np.array([0, 0, 2 * np.pi * turns]))
        np.testing.assert_array_equal(again.render(), first)
    other = np.abs(first[:, None].astype(int) - first).mean((2, 3, 4))
    assert other[~np.eye(40, dtype=bool)].min() > 3, "no two poses look alike"


def test_the_walls_of_room_a_are_where_the_map_says() -> None:
    north, east, south, west = placed(
        *((WEST[0], WEST[1], angle) for angle in (np.pi / 2, 0, -np.pi / 2, np.pi))
    ).render()
    seen = [view[6:14, 4:28].reshape(-1, 3).mean(0) for view in (north, east, south, west)]
    assert seen[3][2] > 2 * seen[3][0], "blue bricks in the west"
    assert seen[1][0] > 1.15 * seen[1][2], "orange panels in the east"
    assert np.ptp(seen[2]) < 30, "gray tiles in the south"
    assert seen[0][0] > seen[0][1], "wood and banners in the north"


def test_the_player_fits_wherever_a_walker_can_get() -> None:
    world = DoomRoomsBatch(np.arange(60), image_size=32)
    actions = world.act("random", [np.random.default_rng(e) for e in range(60)], 60)
    for t in range(59):
        world.step(actions[:, t])
        if t % 15 == 14:
            assert (world.render().std((1, 2, 3)) > 5).all()  # the view tells if the game puts the player elsewhere
    for x, y in ((0.0, 0.0), (-75.0, 400.0)):  # inside a wall, and half inside
        with pytest.raises(DataError, match=rf"no walker fits at \({x:g}, {y:g}\): a wall is nearer than 20 units"):
            placed((x, y, 0.0))


def test_success_is_48_units_and_20_degrees_and_the_way_leads_through_doors() -> None:
    goal = np.array([[*WEST, 0.1]] * 4)
    world = placed(
        (WEST[0] + 47, WEST[1], 0.1), (WEST[0] + 49, *goal[0, 1:]), (*WEST, 0.1 - 0.36), (*WEST, 2 * np.pi + 0.4)
    )
    np.testing.assert_array_equal(world.distance(goal) < world.radius, [True, False, False, True])
    south_west, south_east = (-256.0, -256.0, 0.0), (384.0, -256.0, 0.0)
    far = placed(south_west)
    straight = far.distance(np.array([south_east]))[0]
    assert far.distance_to_goal(np.array([south_east]))[0] > 2 * straight, "through a and b"


def test_goals_are_far_and_anywhere() -> None:
    world = DoomRoomsBatch(np.arange(400))
    goals = world.draw_goals(np.random.default_rng(0))
    here, there = (world._paths.cells(poses[:, :2]) for poses in (world.goal_state(), goals))
    assert (world._paths.steps[here, there] >= FAR).all() and len(set(there)) == len(world._paths.middles)
    assert len(world._paths.middles) == (~wall_cells()).sum() == sum(c != "#" for row in PLAN for c in row)


@pytest.mark.parametrize(("policy", "cells"), [("random", 3), ("noisy-expert", 6)])
def test_the_policies_walk_about_and_do_not_stay_at_walls(policy: str, cells: int) -> None:
    world = DoomRoomsBatch(np.arange(32))
    actions = world.act(policy, [np.random.default_rng(e) for e in range(32)], 60)
    alone = DoomRoomsBatch(np.array([7])).act(policy, [np.random.default_rng(7)], 60)
    np.testing.assert_array_equal(alone[0], actions[7])
    assert actions.shape == (32, 59, 3) and np.abs(actions).max() <= 1
    places = [world.goal_state()[:, :2]]
    for t in range(59):
        world.step(actions[:, t])
        places.append(world.goal_state()[:, :2])
    moved = np.linalg.norm(np.diff(places, axis=0), axis=-1)
    assert (moved < 1).mean() < 0.1 and moved.mean() > 0.4 * STEP
    visited = np.array([world._paths.cells(place) for place in places])
    assert np.mean([len(set(column)) for column in visited.T]) > cells


def test_the_map_is_one_floor_with_a_wall_for_every_border_of_the_plan() -> None:
    data = wad()
    text = data[data.index(b"namespace") : data.index(b"MAP01\0\0\0") - 8].decode()
    walls = wall_cells()
    borders = sum(int((np.diff(walls.astype(int), axis=axis) != 0).sum()) for axis in (0, 1))
    assert text.count("texturemiddle") == borders and text.count("blocking=true") == borders
    assert text.count("twosided=true") == 2 * sum(row.count("+") for row in PLAN)  # both ends of each door
    ends = [tuple(map(int, pair)) for pair in re.findall(r"v1=(\d+); v2=(\d+);", text)]
    assert len(set(map(frozenset, ends))) == len(ends) and max(map(max, ends)) + 1 == text.count("vertex {")


def test_the_game_leaves_nothing_behind(tmp_path: Path) -> None:
    program = (
        "import os\n"
        "import numpy as np\n"
        "from jepa_data.worlds.doom.rooms import DoomRoomsBatch, _view\n"
        "DoomRoomsBatch(np.arange(1), image_size=32).render()\n"
        "print(_view(32, os.getpid())._folder.name)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{root}:{root / 'data'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr and not list(tmp_path.iterdir()) and not Path(done.stdout.strip()).exists()


def test_threads_draw_one_after_the_other() -> None:
    worlds = [placed((*WEST, 0.1 * i), (*EAST, 0.2 * i)) for i in range(8)]
    expected = [world.render() for world in worlds]
    with ThreadPoolExecutor(4) as pool:
        for drawn, image in zip(pool.map(DoomRoomsBatch.render, worlds * 5), expected * 5, strict=True):
            np.testing.assert_array_equal(drawn, image)


def test_depth_at_walls_is_the_distance_to_them_and_images_stay_the_same() -> None:
    world = DoomRoomsBatch(np.arange(3), image_size=64)
    # In the room in the upper left, facing east: its wall, beside the door, is at x = -64.
    world.state = np.array([[x, 408.0, 0.0, 0.0, 0.0] for x in (-430.0, -330.0, -130.0)])
    before = world.render()
    depth = world.spatial("depth")
    assert depth.shape == (3, 64, 64) and depth.dtype == np.float16
    np.testing.assert_allclose(depth[:, 28, 34].astype(float), [366, 266, 66], atol=5)
    assert world.spatial_infos[0].problem(depth, 3) is None
    np.testing.assert_array_equal(world.render(), before)
