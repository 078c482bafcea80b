"""A world of an installed package: eight members, an entry point, and all that ours can do."""

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.inspect.worlds import summarize_worlds
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.loader import make_loader
from jepa_data.worlds import env, make_batch, make_env, make_goal_batch, world_names
from jepa_data.worlds.base import GoalBatch, WorldBatch


class Drift(GoalBatch):
    """A bright square drifts over a plane; the action pushes it."""

    name = "drift"
    action_size = 2
    state_names = ("x", "y", "vx", "vy")
    goal_names = state_names[:2]
    radius = 0.1

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        return np.concatenate([rng.uniform(0.2, 0.8, 2), np.zeros(2)])

    def step(self, actions: NDArray[np.floating]) -> None:
        velocity = 0.9 * self.state[:, 2:] + 0.02 * np.asarray(actions).clip(-1, 1)
        position = (self.state[:, :2] + velocity).clip(0, 1)
        self.state = np.column_stack([position, velocity])

    def render(self) -> NDArray[np.uint8]:
        at = (np.arange(self.image_size) + 0.5) / self.image_size
        near = np.abs(at - self.state[:, :2, None]) < 0.1  # [E, 2, size]
        return np.where(near[:, 1, :, None, None] & near[:, 0, None, :, None], 255, 40).repeat(3, -1).astype(np.uint8)


class Sky(WorldBatch):
    """A color that the action changes: it can be recorded, and has no goals."""

    name = "sky"
    action_size = 1
    version = 2

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        return rng.uniform(80, 160, 1)

    def step(self, actions: NDArray[np.floating]) -> None:
        self.state = (self.state + 10 * actions).clip(0, 255)

    def render(self) -> NDArray[np.uint8]:
        size = self.image_size
        return np.tile(self.state[:, :, None, None], (1, size, size, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints(EntryPoint(cls.name, f"{__name__}:{cls.__name__}", env.GROUP) for cls in (Drift, Sky))
    monkeypatch.setattr(EntryPoint, "load", lambda point: globals()[point.attr])
    monkeypatch.setattr(env, "entry_points", points.select)


def test_a_world_with_goals_needs_under_ten_members() -> None:
    assert sum(not name.startswith("_") for name in vars(Drift)) == 8


def test_it_is_listed_and_recorded_and_streams_as_clips(tmp_path: Path) -> None:
    assert {"drift", "sky"} <= set(world_names())
    for name in ("drift", "sky"):
        record(Recording(name, episodes=3, frames=9, image_size=32), tmp_path / name)
        config = StreamConfig(shards=str(tmp_path / name), batch_size=2, clip_frames=6)
        batch = next(iter(make_loader(config, "train", seed=0)))
        assert batch.video.shape == (2, 6, 3, 32, 32) and batch.actions is not None and batch.actions.abs().max() > 0.1


def test_it_is_a_row_of_jepa_data_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "WORLDS", {})
    drift, sky = summarize_worlds(look=True)
    assert (drift.name, drift.row) == ("drift", ("2", "4 numbers", "0.1 units of the state", "random"))
    assert (sky.name, sky.row) == ("sky", ("1", "0 numbers", "no goals", "random"))
    assert drift.images is not None and sky.images is not None and len(drift.images) == len(sky.images) + 1


@pytest.mark.parametrize("name", ["drift", "sky"])
def test_it_is_a_gymnasium_environment(name: str) -> None:
    check_env(make_env(name, image_size=32), skip_render_check=True)


def test_a_goal_is_reached_by_going_there_and_a_copy_goes_on_apart() -> None:
    world = make_goal_batch("drift", np.arange(4), image_size=32)
    goal = world.draw_goals(np.random.default_rng(0))
    assert (world.distance(goal) > 0.01).all() and not world.has_expert
    copy = world.take(np.array([3, 3]))
    world.set_goal_state(goal)
    assert (world.distance(goal) < 1e-9).all() and (world.speed() == 0).all()
    np.testing.assert_array_equal(copy.states(), make_batch("drift", np.array([3, 3])).states())
    with pytest.raises(NotImplementedError, match="drift"):
        world.expert(goal)


def test_a_name_may_carry_the_version_and_another_one_is_refused() -> None:
    assert make_batch("two-rooms-v1", np.arange(1)).name == "two-rooms"
    assert make_batch("sky-v2", np.arange(1)).name == "sky"
    with pytest.raises(DataError, match=r"two-rooms-v9: .*version 1.*two-rooms-v1"):
        make_batch("two-rooms-v9", np.arange(1))
    with pytest.raises(DataError, match=r"sky-v1: .*version 2"):
        make_batch("sky-v1", np.arange(1))


def test_a_recording_of_a_versioned_name_is_that_of_the_plain_one(tmp_path: Path) -> None:
    for name in ("two-rooms", "two-rooms-v1"):
        record(Recording(name, episodes=2, frames=4, image_size=32), tmp_path / name)
    for file in (tmp_path / "two-rooms").iterdir():
        assert file.read_bytes() == (tmp_path / "two-rooms-v1" / file.name).read_bytes()


def test_a_world_without_goals_cannot_be_planned_in() -> None:
    with pytest.raises(DataError, match="sky can be recorded, but has no goals"):
        make_goal_batch("sky", np.arange(1))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("no_such_package:World", "cannot be imported: No module named"),
        ("json:World", "cannot be imported: .*has no attribute 'World'"),
        ("json:loads", "expected a class derived from WorldBatch or GoalBatch, found <function loads"),
        ("builtins:str", "expected a class derived from WorldBatch or GoalBatch, found <class 'str'>"),
        ("jepa_data.worlds.base:WorldBatch", "the class does not define draw, render, step"),
    ],
)
def test_what_is_no_world_is_refused(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # its own `load`
    monkeypatch.setattr(env, "entry_points", EntryPoints([EntryPoint("new", address, env.GROUP)]).select)
    with pytest.raises(DataError, match=rf"{address} \(entry point 'new' of openjepa.worlds\).*{message}"):
        make_batch("new", np.arange(1))


def test_worlds_are_imported_when_first_named() -> None:
    assert all(isinstance(place, str) for place in env.WORLDS.values())
    for name in env.WORLDS:
        assert callable(env._constructor(name))
