"""Push-T: contact moves the T, success is DINO-WM's, and scripts record what they say."""

import numpy as np
import pytest

pytest.importorskip("pymunk", reason="push-t needs pymunk: pip install 'openjepa[pusht]'")

from jepa_data.errors import DataError
from jepa_data.sources.rollouts import Recording, record
from jepa_data.worlds import rows
from jepa_data.worlds.push_t import REACH, PushTBatch
from jepa_data.worlds.pusher import Pushing, Table
from tests.data.worlds.plain_pushing import plain_step


def placed(*goals: list[float]) -> PushTBatch:
    world = PushTBatch(np.arange(len(goals)))
    world.set_goal_state(np.array(goals, dtype=float))
    return world


def test_the_t_moves_only_if_it_is_touched_and_away_from_the_pusher() -> None:
    world = placed([100, 250, 256, 205, 0], [100, 450, 256, 205, 0])
    for _ in range(12):
        world.step(np.tile([0.5, 0.0], (2, 1)))
    pushed, untouched = world.goal_state()
    assert pushed[2] > 270, "pushed to the right"
    np.testing.assert_array_equal(untouched[2:], [256, 205, 0])


def tables(count: int) -> tuple[Table, np.ndarray]:
    """Tables in the middle of pushes, some with the T at a wall or under the pusher, and targets [E, 2]."""
    rng = np.random.default_rng(0)
    block = np.column_stack([rng.uniform(30, 480, (count, 2)), rng.uniform(-7, 7, count)])
    agent = (block[:, :2] + rng.normal(0, 90, (count, 2))).clip(20, 492)
    moving = rng.random((count, 1)) < 0.5
    velocity = moving * rng.normal(0, [100, 100, 1], (count, 3))
    targets = (agent + REACH * rng.uniform(-1, 1, (count, 2))).clip(20, 492)
    return Table(agent, rng.normal(0, 150, (count, 2)), block, velocity), targets


def test_steps_are_those_of_a_new_pymunk_space_whatever_was_simulated_before() -> None:
    table, targets = tables(400)
    expected = [plain_step(table, e, tuple(targets[e])) for e in range(400)]
    assert np.mean([pose != before for (pose, _), before in zip(expected, table.block.tolist(), strict=True)]) > 0.2
    physics = Pushing("push-t")
    for order in (np.arange(400), np.arange(400)[::-1], np.random.default_rng(1).permutation(400)):
        moved = rows.take(table, order)
        physics.step(moved, targets[order])
        np.testing.assert_allclose(moved.block, [expected[e][0] for e in order], rtol=0, atol=1e-9)
        np.testing.assert_allclose(moved.block_velocity, [expected[e][1] for e in order], rtol=0, atol=1e-9)


def test_numbers_that_are_not_finite_are_refused_and_the_table_goes_on() -> None:
    table, targets = tables(20)
    physics = Pushing("push-t")
    wrong = targets.copy()
    wrong[3] = np.nan
    with pytest.raises(ValueError, match="expected finite actions and states"):
        physics.step(table, wrong)
    again, _ = tables(20)
    physics.step(table, targets)
    Pushing("push-t").step(again, targets)
    np.testing.assert_array_equal(table.block, again.block)


def test_a_push_beside_the_middle_turns_the_t() -> None:
    low, high = [256, 420, 256, 205, 0], [216, 100, 256, 205, 0]
    world = placed([*low[:2], *low[2:]], [*high[:2], *high[2:]])
    for _ in range(8):
        world.step(np.array([[0.0, -0.6], [0.0, 0.6]]))
    turned = (world.goal_state()[:, 4] + np.pi) % (2 * np.pi) - np.pi
    assert abs(turned[0]) < 0.05 < 0.2 < abs(turned[1])


def test_the_pusher_is_drawn_to_where_the_action_says_and_never_leaves_the_table() -> None:
    world = placed([60, 60, 350, 350, 1.0])
    world.step(np.array([[0.3, 0.0]]))
    for _ in range(30):
        away = 90.0 - world.state.agent[0, 0]
        world.step(np.array([[away / 100, 0.0]]))
    np.testing.assert_allclose(world.state.agent, [[90, 60]], atol=0.5)
    for _ in range(30):
        world.step(np.array([[-1.0, -1.0]]))
    assert (world.state.agent > 15).all()


@pytest.mark.parametrize(
    ("change", "success"),
    [
        ([0, 0, 0, 0, 0], True),
        ([11, 11, 8, 8, 0.3], True),  # the norm of four differences: 19.2 px
        ([12, 12, 9, 9, 0], False),  # 21.2 px, though each of the two is within 20
        ([0, 0, 0, 0, np.pi / 9 + 0.01], False),
        ([0, 0, 0, 0, -np.pi / 9 + 0.01], True),
        ([0, 0, 0, 0, 2 * np.pi], True),
    ],
)
def test_success_is_20_px_of_all_four_positions_and_20_degrees(change: list[float], success: bool) -> None:
    goal = np.array([[200.0, 210, 250, 260, 0.1]])
    world = placed((goal[0] + change).tolist())
    assert (world.distance(goal)[0] < world.radius) == success


def test_states_are_what_dino_wm_has_and_restored_poses_are_exact() -> None:
    goals = PushTBatch(np.arange(50)).draw_goals(np.random.default_rng(0))
    world = placed(*goals.tolist())
    np.testing.assert_allclose(world.goal_state(), goals, atol=1e-9)
    np.testing.assert_allclose(world.states(), np.column_stack([goals, np.zeros((50, 2))]), rtol=1e-6)
    world.step(np.tile([1.0, 0.0], (50, 1)))
    assert (world.states()[:, 5] > 10).all(), "agent.vx, in px a second"
    still = placed(*goals.tolist())
    still.step(np.zeros((50, 2)))  # starts do not overlap, so nothing moves by itself
    np.testing.assert_allclose(still.goal_state(), goals, atol=1e-9)


def test_images_show_the_t_and_the_pusher_where_they_are() -> None:
    image = placed([400, 100, 256, 200, 0]).render()[0].astype(int)
    blue = image[..., 2] - image[..., 0]
    y, x = np.unravel_index(blue.argmax(), (64, 64))
    assert abs(x - 50) <= 1.5 and abs(y - 12.5) <= 1.5
    dark = image.sum(-1) < 450
    assert dark[27, 26] and dark[27, 37] and dark[38, 32] and not dark[38, 26] and not dark[20, 32]


def recorded(policy: str, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Actions [E, frames-1, 2] of 40 episodes, and the poses [E, frames, 5] that they lead through."""
    world = PushTBatch(np.arange(40))
    actions = world.act(policy, [np.random.default_rng(e) for e in range(40)], frames)
    alone = PushTBatch(np.array([7])).act(policy, [np.random.default_rng(7)], frames)
    np.testing.assert_array_equal(alone[0], actions[7])
    poses = [world.goal_state()]
    for t in range(frames - 1):
        world.step(actions[:, t])
        poses.append(world.goal_state())
    return actions, np.stack(poses, 1)


def test_scripts_move_the_t_and_random_hands_seldom_do() -> None:
    moved = {}
    for policy in ("random", "pusher", "demonstrations"):
        actions, poses = recorded(policy, 60)
        assert actions.shape == (40, 59, 2) and np.abs(actions).max() <= 1
        moved[policy] = (np.linalg.norm(poses[:, -1, 2:4] - poses[:, 0, 2:4], axis=-1) > 20).mean()
    assert moved["pusher"] > 0.9 and moved["demonstrations"] > 0.8 and moved["random"] < 0.6


def test_demonstrations_are_as_slow_as_those_of_people_and_stay_near_the_t() -> None:
    actions, poses = recorded("demonstrations", 150)
    assert 0.17 < actions.std() < 0.23, "DINO-WM's have a standard deviation of 0.20"
    gap = np.linalg.norm(poses[..., :2] - poses[..., 2:4], axis=-1)
    assert np.median(gap[:, 50:]) < 110 < np.median(gap[:, 0])
    moves = np.linalg.norm(np.diff(poses[..., 2:4], axis=1), axis=-1) > 0.1
    assert 0.3 < moves.mean() < 0.7
    assert (moves[:, 75:].mean(1) < 0.1).any(), "some replays have lost the T"


def test_unknown_policies_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="push-t has the policies random, pusher, demonstrations, found 'expert'"):
        record(Recording("push-t", episodes=4, policy="expert"), tmp_path / "shards")
