"""Any Gymnasium environment as a world: actions are scaled, episodes end, and what does not fit is refused."""

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from jepa_data.errors import DataError
from jepa_data.shards.index import ShardSet
from jepa_data.sources.rollouts import Recording, record
from jepa_data.worlds import make_batch, make_env, make_goal_batch
from jepa_data.worlds.gym import _flat, _names
from tests.data.video_cases import needs


class Line(gymnasium.Env):
    """A dot on a line. Observation: a dict of a vector, a number and an image (left out by `plain`)."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, render_mode=None, action=None, plain=True, ends=6, truncates=False, mode="RGB", reverse=False):
        self.reverse = reverse
        self.render_mode, self.ends, self.truncates, self.mode = render_mode, ends, truncates, mode
        self.action_space = spaces.Box(np.float32([0, -2]), np.float32([10, 2])) if action is None else action
        parts = {"where": spaces.Box(-100, 100, (2,)), "steps": spaces.Discrete(100)}
        more = {} if plain else {"seen": spaces.Box(0, 255, (4, 4, 3), np.uint8)}
        self.observation_space = spaces.Dict(parts | more)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.where, self.steps, self.done = self.np_random.uniform(0, 3, 2), 0, []
        return self._seen(), {}

    def step(self, action):
        self.done.append(np.asarray(action))
        self.steps += 1
        self.where = self.where + np.asarray(action).ravel()[0]
        over = self.steps >= self.ends
        return self._seen(), float(self.steps), over and not self.truncates, over and self.truncates, {}

    def render(self):
        image = np.zeros((20, 40, 3 if self.mode == "RGB" else 4), np.uint8)
        image[:, int(self.where[0]) % 40] = 255
        return image

    def _seen(self):
        seen = {"where": self.where.astype(np.float32), "steps": self.steps}
        keys = sorted(self.observation_space, reverse=self.reverse)
        return {key: seen.get(key, np.zeros((4, 4, 3), np.uint8)) for key in keys}


@pytest.fixture
def line():
    """Registers `Line` with some settings; takes it away again."""
    added = []

    def add(**settings):
        added.append(f"OpenJepaLine{len(added)}-v3")
        checks = {"disable_env_checker": True, "order_enforce": False}
        gymnasium.register(added[-1], entry_point=Line, kwargs=settings, **checks)
        return f"gym:{added[-1]}"

    yield add
    for name in added:
        gymnasium.registry.pop(name)


def test_boxes_are_scaled_to_one_and_dicts_become_states(line) -> None:
    world = make_batch(line(), np.arange(2), image_size=32)
    assert (world.action_size, world.fps, world.version) == (2, 5.0, 4)
    observed = ("observation.steps", "observation.where.0", "observation.where.1")
    assert world.state_names == (*observed, "reward", "terminated")
    before = world.states()
    world.step(np.array([[-1.0, 0.0], [1.0, 5.0]]))
    np.testing.assert_allclose(world._envs[0].unwrapped.done[0], [0, 0])
    np.testing.assert_allclose(world._envs[1].unwrapped.done[0], [10, 2])
    np.testing.assert_allclose((world.states() - before)[:, :3], [[1, 0, 0], [1, 10, 10]], atol=1e-6)
    assert world.render().shape == (2, 32, 32, 3)


def test_of_discrete_actions_the_largest_entry_is_done(line) -> None:
    world = make_batch(line(action=spaces.Discrete(3, start=5)), np.arange(2), image_size=32)
    assert world.action_size == 3
    world.step(np.array([[0.1, 0.3, 0.2], [-0.5, -0.9, -0.4]]))
    assert [int(env.unwrapped.done[0]) for env in world._envs] == [6, 7]
    actions = world.act("random", [np.random.default_rng(e) for e in range(2)], 30)
    assert set(np.unique(actions)) == {0, 1} and (actions.sum(-1) == 1).all()


def test_the_vector_beside_an_image_is_recorded_as_state(line, tmp_path: Path) -> None:
    manifest = record(Recording(line(plain=False), episodes=2, frames=4), tmp_path / "shards")
    observed = ("observation.steps", "observation.where.0", "observation.where.1")
    assert manifest.state_names == (*observed, "reward", "terminated") and manifest.action_size == 2
    assert make_batch(line(plain=False), np.arange(1), image_size=32).states().shape == (1, 5)


def test_velocity_that_is_observed_before_position_is_not_recorded_as_position(line) -> None:
    """The space sorts its keys; the environment returns them in an order of its own."""
    world = make_batch(line(reverse=True), np.arange(2), image_size=32)
    before = dict(zip(world.state_names, world.states()[0].tolist(), strict=True))
    for _ in range(3):
        world.step(np.zeros((2, 2)))  # the middle of 0..10 is 5
    after = dict(zip(world.state_names, world.states()[0].tolist(), strict=True))
    assert after["observation.steps"] == 3 and before["observation.steps"] == 0
    moved = [after[f"observation.where.{i}"] - before[f"observation.where.{i}"] for i in (0, 1)]
    np.testing.assert_allclose(moved, 15, atol=1e-4)


def test_parts_of_a_tuple_are_named_by_their_place(line) -> None:
    space = spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Box(0, 255, (4, 4, 3), np.uint8), spaces.MultiBinary(2)))
    seen = space.sample()
    assert _names(space, seen) == ["observation.0.0", "observation.0.1", "observation.2.0", "observation.2.1"]
    assert _flat(space, seen).shape == (4,)


@pytest.mark.parametrize(
    ("space", "values"),
    [
        (spaces.Box(0, 3, (1,), np.int64), [0, 1, 2, 3]),
        (spaces.Box(-2, 1, (1,), np.int8), [-2, -1, 0, 1]),
        (spaces.MultiDiscrete([4], start=[10]), [10, 11, 12, 13]),
        (spaces.MultiBinary(1), [0, 1]),
    ],
)
def test_every_value_of_an_integer_action_is_done_equally_often(line, space: spaces.Space, values: list[int]) -> None:
    world = make_batch(line(action=space, ends=1000), np.arange(1), image_size=32)
    assert world.action_size == 1
    for number in np.linspace(-1, 1, 401):
        world.step(np.array([[number]]))
    done = np.concatenate([action.ravel() for action in world._envs[0].unwrapped.done])
    found, counts = np.unique(done, return_counts=True)
    assert found.tolist() == values and np.ptp(counts) <= 1


def test_an_action_that_is_not_a_number_is_refused(line) -> None:
    env = make_env(line(), image_size=32)
    env.reset(seed=0)
    with pytest.raises(DataError, match=r"an action is \[nan, 0.0\]; expected finite numbers"):
        env.step(np.array([np.nan, 0.0], np.float32))


@pytest.mark.parametrize("truncates", [False, True])
def test_each_frame_tells_what_led_to_it_was_worth_and_whether_it_was_the_end(line, truncates: bool) -> None:
    name = line(ends=3, truncates=truncates)
    world = make_batch(name, np.arange(2), image_size=32)
    told = [world.states()[:, -2:]]
    for _ in range(4):  # the last one comes after the end, and changes nothing
        world.step(np.zeros((2, 2)))
        told.append(world.states()[:, -2:])
    last = [3, 0 if truncates else 1]
    for episode in np.stack(told, 1):
        np.testing.assert_array_equal(episode, [[np.nan, 0], [1, 0], [2, 0], last, last])
    assert world.terminated().all()
    np.testing.assert_array_equal(world.take(np.array([1, 1])).states()[:, -2:], [last, last])
    env = make_env(name, image_size=32)
    assert "reward" not in env.reset(seed=0)[1]["state"]
    assert [env.step(env.action_space.sample())[1:4] for _ in range(3)] == [
        (1.0, False, False),
        (2.0, False, False),
        (3.0, not truncates, truncates),
    ]


def test_a_recording_stops_where_the_episode_ends(line, tmp_path: Path) -> None:
    name = line(ends=6)
    manifest = record(Recording(name, episodes=4, frames=20), tmp_path / "shards")
    assert manifest.splits["train"].frames == 3 * 7 and manifest.splits["test"].frames == 7  # six steps
    assert ShardSet.open(str(tmp_path / "shards")).manifest.fps == 5
    env = make_env(name, image_size=32)
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2] for _ in range(8)]
    assert ends == [False] * 5 + [True] * 3


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"action": spaces.Box(-np.inf, np.inf, (2,))}, "expected a Box with finite bounds, Discrete"),
        ({"action": spaces.Text(3)}, r"has actions Text"),
        ({"mode": "RGBA"}, "expected an RGB image"),
    ],
)
def test_what_does_not_fit_is_refused(line, settings: dict, told: str) -> None:
    with pytest.raises(DataError, match=told):
        make_batch(line(**settings), np.arange(1)).render()


@pytest.mark.parametrize("name", ["gym:Pendulim-v1", "gym:Pendulum-v99", "gym:", "gym:no_such_package:X-v0"])
def test_ids_that_gymnasium_does_not_know_are_reported_in_one_line(name: str) -> None:
    with pytest.raises(DataError, match=f"^{name}: Gymnasium cannot make "):
        make_batch(name, np.arange(1))


def test_there_are_no_tasks_in_it(line) -> None:
    with pytest.raises(DataError, match="can be recorded, but has no goals to plan for; choose another of billiards"):
        make_goal_batch(line(), np.arange(1))


def test_a_world_draws_images_from_files_also_after_videos_were_read_by_decord() -> None:
    needs("decord")
    program = (
        "import ctypes\n"
        "from jepa_data.decode import get_backend\n"
        "shared = ctypes.RTLD_GLOBAL\n"
        "get_backend('decord')\n"
        "assert ctypes.RTLD_GLOBAL == shared\n"
        "import numpy as np\n"
        "from jepa_data.worlds import make_batch\n"
        "assert make_batch('gym:Pendulum-v1', np.arange(1)).render().std() > 0\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
