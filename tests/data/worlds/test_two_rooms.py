"""Two rooms: walls hold, the door lets through, and data come from the dynamics that are planned in."""

from pathlib import Path

import numpy as np
import pytest

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.loader import make_loader
from jepa_data.worlds import make_batch, make_env
from jepa_data.worlds.two_rooms import DOOR, HIGH, LONGEST_STEP, LOW, THICK, TwoRoomsBatch


def world(count: int = 200, random_wall: bool = True, seed: int = 0) -> TwoRoomsBatch:
    return TwoRoomsBatch(random_wall, np.arange(count), seed=seed)


def inside_a_wall(w: TwoRoomsBatch) -> np.ndarray:
    r = w.state
    outside = ((r.position < LOW) | (r.position > HIGH)).any(-1)
    in_wall = (np.abs(r.position[:, 0] - r.wall) <= THICK) & (np.abs(r.position[:, 1] - r.door) > DOOR)
    return outside | in_wall


@pytest.mark.parametrize("random_wall", [False, True])
def test_nobody_gets_into_a_wall_or_across_it_but_through_the_door(random_wall: bool) -> None:
    w, rng = world(random_wall=random_wall), np.random.default_rng(0)
    assert not inside_a_wall(w).any()
    crossed = 0
    for _ in range(300):
        before, side = w.state.position.copy(), w.state.position[:, 0] > w.state.wall
        w.step(rng.uniform(-1, 1, (len(w), 2)) * 3)
        assert not inside_a_wall(w).any()
        assert np.linalg.norm(w.state.position - before, axis=-1).max() <= LONGEST_STEP + 1e-9
        changed = side != (w.state.position[:, 0] > w.state.wall)
        # A step that begins in the doorway may end beyond its post.
        assert (np.abs(w.state.position[changed, 1] - w.state.door[changed]) <= DOOR + LONGEST_STEP).all()
        crossed += int(changed.sum())
    assert crossed > 20


def test_a_blocked_step_stays_put() -> None:
    w = world(1, random_wall=False)
    w.set_goal_state(np.array([[30.5, 10.0]]) / 64)
    w.step(np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(w.goal_state() * 64, [[30.5, 10.0]])
    w.step(np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(w.goal_state() * 64, [[30.5, 11.8]])


@pytest.mark.parametrize("random_wall", [False, True])
def test_the_expert_gets_to_every_goal_of_the_other_room(random_wall: bool) -> None:
    w = world(500, random_wall)
    goal = w.draw_goals(np.random.default_rng(0))
    assert ((goal[:, 0] * 64 > w.state.wall) != (w.state.position[:, 0] > w.state.wall)).all()
    for _ in range(120):
        w.step(w.expert(goal))
    assert w.distance(goal).max() < 1 / 64


@pytest.mark.parametrize("policy", ["random", "noisy-expert", "mixed"])
def test_recorded_walks_go_through_the_door_and_repeat_themselves(policy: str) -> None:
    w = world(200)
    actions = [w.act(policy, [np.random.default_rng(e) for e in range(200)], 90) for _ in range(2)]
    np.testing.assert_array_equal(*actions)
    assert actions[0].shape == (200, 89, 2) and np.linalg.norm(actions[0], axis=-1).max() <= 1 + 1e-6
    np.testing.assert_array_equal(world(200).state.position, w.state.position)  # acting is only thought
    side = w.state.position[:, 0] > w.state.wall
    for t in range(89):
        w.step(actions[0][:, t])
    share = (side != (w.state.position[:, 0] > w.state.wall)).mean()
    assert 0.25 < share < 0.6 if policy == "random" else share > 0.3
    alone = world(1).act(policy, [np.random.default_rng(0)], 90)
    np.testing.assert_array_equal(alone[0], actions[0][0])


def test_the_dot_is_red_and_where_it_is_and_the_door_is_open() -> None:
    w = world(3)
    image = w.render()
    assert image.shape == (3, 64, 64, 3) and image.dtype == np.uint8
    for e in range(3):
        y, x = np.unravel_index(image[e, :, :, 0].argmax(), (64, 64))
        np.testing.assert_allclose([x + 0.5, y + 0.5], w.state.position[e], atol=0.6)
        wall, door = int(w.state.wall[e]), int(w.state.door[e])
        assert image[e, door, wall, 1] == 0 and image[e, (door + 20) % 40 + 10, wall, 1] > 0
    assert make_batch("two-rooms", np.arange(2), image_size=32).render().shape == (2, 32, 32, 3)


def test_replaying_recorded_actions_gives_the_recorded_states(tmp_path: Path) -> None:
    recording = Recording("two-rooms-random-wall", episodes=6, frames=30, policy="noisy-expert")
    record(recording, tmp_path / "shards")
    config = StreamConfig(shards=str(tmp_path / "shards"), batch_size=5, clip_frames=30)
    for batch in make_loader(config, "train", seed=0, shuffle=False):
        assert batch.actions is not None and batch.states is not None
        w = make_batch("two-rooms-random-wall", np.array([int(key.rsplit("-", 1)[1]) for key in batch.keys]))
        for t in range(30):
            np.testing.assert_allclose(batch.states[:, t].numpy(), w.states(), atol=1e-6)
            if t < 29:
                w.step(batch.actions[:, t].numpy())


def test_unknown_policies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two-rooms has the policies random, noisy-expert, mixed, found 'expert'"):
        record(Recording("two-rooms", episodes=4, policy="expert"), tmp_path / "shards")
    with pytest.raises(DataError, match=r"there are billiards-easy, .*two-rooms"):
        make_batch("three-rooms", np.arange(1))


def test_it_is_a_gymnasium_world() -> None:
    env = make_env("two-rooms")
    image, info = env.reset(seed=0)
    assert image.shape == (64, 64, 3) and set(info["state"]) == {"agent.x", "agent.y", "wall.x", "door.y"}
    for _ in range(40):
        _, reward, _, truncated, info = env.step(np.array([0.5, 0.0], np.float32))
    assert truncated and reward == -info["distance"]


def test_half_of_the_random_walks_do_each_action_five_times():
    batch = make_batch("two-rooms", np.arange(200), seed=0)
    actions = batch.act("random", [np.random.default_rng(i) for i in range(200)], 41)
    blocks = actions.reshape(200, 8, 5, 2)
    held = (blocks == blocks[:, :, :1]).all((1, 2, 3))
    assert 70 < held.sum() < 130
    assert not (blocks[~held, :, 1:] == blocks[~held, :, :1]).all(-1).any()
