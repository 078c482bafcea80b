"""Reacher: the arm is the control suite's, and its pose is the goal."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="reacher needs mujoco: pip install 'openjepa[reacher]'")

import mujoco

from jepa_data.worlds.mujoco.base import Scene
from jepa_data.worlds.mujoco.reacher import EXTRA, FAR, LIMIT, LINK, NAME, SEEN, ReacherBatch


def placed(*poses: tuple[float, float]) -> ReacherBatch:
    world = ReacherBatch(np.arange(len(poses)))
    world.set_goal_state(np.array(poses, dtype=float))
    return world


@pytest.fixture
def suite():
    """The suite's own model, read from its file: importing the suite would choose how OpenGL draws."""
    found = find_spec("dm_control")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the control suite is not here (it has no wheels for Python 3.13): pip install dm_control")
    return mujoco.MjModel.from_xml_path(str(Path(found.submodule_search_locations[0]) / "suite" / "reacher.xml"))


def test_the_arm_moves_as_the_suites(suite) -> None:
    world, data = placed((0.5, -2.0)), mujoco.MjData(suite)
    data.qpos[:] = [0.5, -2.0]
    rng, furthest = np.random.default_rng(0), 0.0
    for action in np.repeat(rng.uniform(-1, 1, (30, 2)), 4, axis=0):
        data.ctrl[:] = action
        for _ in range(2):
            data.qacc_warmstart[:] = 0
            mujoco.mj_step(suite, data)
        world.step(action[None])
        np.testing.assert_allclose(world.state[0], [*data.qpos, *data.qvel], rtol=0, atol=1e-9)
        furthest = max(furthest, abs(data.qpos[1]))
    assert furthest > LIMIT - 0.1, "it came to the wrist's stop"


def test_images_are_the_suites_without_the_target(suite) -> None:
    suite.geom("target").rgba[3] = 0
    suite.geom_matid[suite.geom("target").id] = -1
    poses = np.array([[0.3, 1.0], [-2.0, -0.5], [3.0, 2.5]])
    theirs = Scene(NAME, suite, EXTRA, 64, SEEN).draw(poses).astype(int)
    ours = placed(*poses).render().astype(int)
    assert np.abs(theirs - ours).mean() < 3 < 8 < ours.std()


def test_the_fingertip_is_where_the_arm_ends_and_the_image_shows_it() -> None:
    world = placed((0.0, 0.0), (np.pi / 2, 0.0), (np.pi, -np.pi / 2))
    finger = world.states()[:, 4:]
    np.testing.assert_allclose(finger, [[2 * LINK, 0], [0, 2 * LINK], [-LINK, LINK]], atol=1e-6)
    arm = world.render().astype(int)
    warm = arm[..., 0] - arm[..., 2] > 40
    for row, (x, y) in enumerate(finger):
        there = (int(32 - y / SEEN * 64), int(32 + x / SEEN * 64))
        near = warm[row, there[0] - 2 : there[0] + 3, there[1] - 2 : there[1] + 3]
        assert near.any() and 15 < warm[row].sum() < 200
    assert not (warm[0] & warm[1])[:28].any()


def test_the_shoulder_turns_the_short_way_and_the_wrist_does_not_pass_its_stop() -> None:
    world, goal = placed((3.0, 2.5), (0.0, 0.0)), np.array([[-3.0, -2.5], [0.1, -0.05]])
    np.testing.assert_allclose(world.distance(goal), [5.0, 0.1])
    np.testing.assert_allclose(world.distance_to_goal(goal), [2 * np.pi - 6 + 5, 0.15])
    torques = world.expert(goal)
    assert torques[0, 0] > 0 > torques[0, 1]
    turned = placed((3.0 + 2 * np.pi, 0.0))
    np.testing.assert_allclose(turned.goal_state(), [[3.0, 0.0]])


def test_success_is_both_joints_within_a_fifth_of_a_radian() -> None:
    goal = np.zeros((3, 2))
    world = placed((0.19, -0.19), (0.21, 0.0), (0.0, 0.21))
    np.testing.assert_array_equal(world.distance(goal) < world.radius, [True, False, False])


def test_starts_and_goals_are_the_suites_and_goals_are_far() -> None:
    world = ReacherBatch(np.arange(400))
    goals = world.draw_goals(np.random.default_rng(0))
    for poses in (world.goal_state(), goals):
        assert (np.abs(poses) <= [np.pi, LIMIT]).all()
        np.testing.assert_allclose(poses.std(0), np.array([np.pi, LIMIT]) / np.sqrt(3), rtol=0.1)
    assert (world.distance(goals) >= FAR).all()


def test_the_script_turns_the_arm_to_a_pose_and_stops_there() -> None:
    world = ReacherBatch(np.arange(50))
    goal = world.draw_goals(np.random.default_rng(1))
    for _ in range(50):
        world.step(world.expert(goal))
    assert (world.distance(goal) < 0.01).all() and (world.speed() < 0.1).all()


@pytest.mark.parametrize("policy", ReacherBatch.policies)
def test_the_policies_turn_both_joints_everywhere(policy: str) -> None:
    world = ReacherBatch(np.arange(32))
    actions = world.act(policy, [np.random.default_rng(e) for e in range(32)], 60)
    alone = ReacherBatch(np.array([5])).act(policy, [np.random.default_rng(5)], 60)
    np.testing.assert_array_equal(alone[0], actions[5])
    assert actions.shape == (32, 59, 2) and np.abs(actions).max() <= 1
    poses = []
    for t in range(59):
        world.step(actions[:, t])
        poses.append(world.goal_state())
    spread = np.concatenate(poses).std(0)
    assert spread[0] > 1.5 and spread[1] > 1.0
