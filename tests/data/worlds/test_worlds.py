"""What every world promises, tried on each; a world whose package is not installed, or cannot draw here, is skipped."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from jepa.cli.app import main
from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.loader import make_loader
from jepa_data.worlds import make_batch, make_env, make_goal_batch, world_names

WITHOUT_GOALS = ["camera", "take-cover", "gym:Pendulum-v1", "gym:CartPole-v1"]
WITH_GOALS = [name for name in world_names() if name not in (*WITHOUT_GOALS, "gym:ID")]
BY_MEMORY = [name for name in WITH_GOALS if name.startswith("cue-corridor")]  # one goal; half of all tasks by chance
ALL = [*WITH_GOALS, *WITHOUT_GOALS]
FRAMES = 8
STEPS = 120  # within which every script has got to its goal
ROOT = Path(__file__).parents[3]


def world(name: str, episodes=range(4), **settings):
    """The world, or a skip that says why it is not here."""
    try:
        made = make_batch(name, np.array(episodes), image_size=32, **settings)
        made.render()
    except DataError as error:
        if os.environ.get("CI") or not ("pip install" in str(error) or "apt install" in str(error)):
            raise
        pytest.skip(f"{name} is not here: {error}")
    return made


def actions_of(batch, seed: int = 0, policy: str | None = None) -> np.ndarray:
    generators = [np.random.default_rng([seed, e]) for e in range(len(batch))]
    return batch.act(policy or batch.policies[0], generators, FRAMES)


def played(batch, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images [T, E, h, w, 3] and states [T, E, X] of the actions [E, T-1, A]."""
    images, states = [batch.render()], [batch.states()]
    for t in range(actions.shape[1]):
        batch.step(actions[:, t])
        images.append(batch.render())
        states.append(batch.states())
    return np.stack(images), np.stack(states)


@pytest.mark.parametrize("name", ALL)
def test_gymnasiums_own_check_passes(name: str) -> None:
    world(name)
    check_env(make_env(name, image_size=32), skip_render_check=True)


@pytest.mark.parametrize("name", ALL)
def test_an_episode_is_a_function_of_seed_number_and_actions_whoever_is_beside_it(name: str) -> None:
    together = world(name)
    actions = actions_of(together)
    images, states = played(together, actions)
    assert images.shape == (FRAMES, 4, 32, 32, 3) and images.dtype == np.uint8 and states.dtype.kind == "f"
    assert states.shape[-1] == len(together.state_names) and actions.shape[-1] == together.action_size
    assert images.std() > 1, "the images are empty"
    alone = played(world(name, [2]), actions[2:3])
    np.testing.assert_array_equal(alone[0][:, 0], images[:, 2])
    np.testing.assert_array_equal(alone[1][:, 0], states[:, 2])
    other, same = world(name, seed=1).states(), world(name).states()
    np.testing.assert_array_equal(same, states[0])
    if name != "take-cover":  # its episodes all begin alike
        assert (np.nan_to_num(other) != np.nan_to_num(same)).any(), "another seed draws other episodes"


@pytest.mark.parametrize("name", ALL)
def test_a_copy_made_on_the_way_goes_on_exactly_and_apart(name: str) -> None:
    batch = world(name)
    actions = actions_of(batch)
    played(batch, actions[:, :3])
    copy = batch.take(np.array([3, 1, 1]))
    kept = copy.states().copy()
    images, states = played(batch, actions[:, 3:])
    np.testing.assert_array_equal(copy.states(), kept)  # the original went on, the copy did not
    again = played(copy, actions[[3, 1, 1], 3:])
    np.testing.assert_array_equal(again[0], images[:, [3, 1, 1]])
    np.testing.assert_array_equal(again[1], states[:, [3, 1, 1]])


@pytest.mark.parametrize("name", ALL)
def test_looking_changes_nothing(name: str) -> None:
    seen, unseen = world(name), world(name)
    actions = actions_of(seen)
    played(seen, actions)
    for t in range(FRAMES - 1):
        unseen.step(actions[:, t])
    np.testing.assert_array_equal(seen.states(), unseen.states())
    np.testing.assert_array_equal(seen.render(), unseen.render())


@pytest.mark.parametrize("name", ALL)
def test_other_actions_give_other_images(name: str) -> None:
    batch = world(name)
    actions = np.random.default_rng(0).uniform(-1, 1, (4, FRAMES - 1, batch.action_size)).astype(np.float32)
    images = played(batch, actions)[0]
    others = played(world(name), np.roll(actions, 1, axis=0))[0]
    np.testing.assert_array_equal(images[0], others[0])
    differ = (images[-1] != others[-1]).any((1, 2, 3))
    assert differ.all() if name not in BY_MEMORY else differ.any(), "two walkers may have come to the same room"


@pytest.mark.parametrize("name", WITH_GOALS)
def test_goals_can_be_reached_and_are_reached_where_they_are_placed(name: str) -> None:
    world(name)
    batch = make_goal_batch(name, np.arange(16), image_size=32)
    goal = batch.draw_goals(np.random.default_rng(0))
    assert goal.shape == (16, len(batch.goal_names))
    assert (batch.distance(goal) >= batch.radius).mean() > 0.5
    np.testing.assert_allclose(batch.distance(batch.goal_state()), 0, atol=1e-6)
    batch.set_goal_state(goal)
    assert (batch.distance(goal) < 0.05 * batch.radius).all()
    np.testing.assert_allclose(batch.goal_state(), goal, atol=1e-4)
    assert (batch.distance_to_goal(goal) < 0.1 * batch.radius).all() and (batch.speed() < 1e-6).all()


@pytest.mark.parametrize("name", [name for name in WITH_GOALS if name not in BY_MEMORY])
def test_every_place_has_an_image_of_its_own(name: str) -> None:
    world(name)
    batch = make_goal_batch(name, np.zeros(12, dtype=int), image_size=32)  # the same episode, twelve times
    start = batch.render()
    assert (start == start[0]).all()
    goal = batch.draw_goals(np.random.default_rng(0))
    batch.set_goal_state(goal)
    images = batch.render().astype(int)
    changed = (np.abs(images[:, None] - images) > 20).any(-1).sum((2, 3))
    differ = changed[~np.eye(12, dtype=bool)] >= 2  # pixels
    assert differ.all() if name != "billiards-medium" else differ.mean() > 0.9, "its band hides some places"
    batch.set_goal_state(goal[::-1])
    np.testing.assert_array_equal(batch.render(), images[::-1])  # whatever was there before


@pytest.mark.parametrize("name", WITH_GOALS)
def test_the_script_solves_tasks_that_random_actions_do_not_and_ends_at_what_the_image_shows(name: str) -> None:
    world(name)
    batch = make_goal_batch(name, 1_000_000 + np.arange(20), image_size=32)
    if not batch.has_expert:
        with pytest.raises(NotImplementedError):
            batch.expert(batch.goal_state())
        return
    start, goal = batch.goal_state(), batch.draw_goals(np.random.default_rng(0))
    ended = {}
    for agent in ("script", "random"):
        played, rng = batch.take(np.arange(20)), np.random.default_rng(1)
        held = np.zeros((20, batch.action_size))
        for t in range(STEPS):
            held = rng.uniform(-1, 1, held.shape) if t % 4 == 0 else held
            played.step(played.expert(goal) if agent == "script" else held)
        ended[agent] = played
    solved = {agent: (played.distance(goal) < batch.radius).mean() for agent, played in ended.items()}
    assert solved["script"] >= 0.9 and solved["random"] <= (0.75 if name in BY_MEMORY else 0.3)
    # Beside the goal's image as it would be now: other things may have moved meanwhile.
    seen, images = ended["script"].render().astype(int), []
    for there in (goal, start):
        ended["script"].set_goal_state(there)
        images.append(ended["script"].render().astype(int))
    assert np.abs(seen - images[0]).mean() < 0.5 * np.abs(images[1] - images[0]).mean()


@pytest.mark.parametrize("name", ALL)
def test_what_the_command_records_has_the_same_bytes_again_and_streams_as_clips(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = world(name, [0])
    out, again = tmp_path / "shards", tmp_path / "again"
    words = ["--episodes", "3", "--frames", "9", "--image-size", "32", "--policy", about.policies[-1]]
    monkeypatch.setattr(sys, "argv", ["jepa", "data", "record", name, str(out), *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    record(Recording(name, episodes=3, frames=9, image_size=32, policy=about.policies[-1]), again)
    for file in out.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes(), "the same bytes, twice"
    config = StreamConfig(shards=str(out), batch_size=2, clip_frames=6)
    batch = next(iter(make_loader(config, "train", seed=0)))
    assert batch.video.shape == (2, 6, 3, 32, 32)
    assert batch.actions is not None and batch.actions.shape == (2, 5, about.action_size)
    assert batch.actions.abs().max() <= 1
    assert batch.states is not None and batch.states.shape == (2, 6, len(about.state_names))


@pytest.mark.parametrize(
    ("name", "near"), [("push_t", "push-t"), ("billiard-easy", "billiards-easy"), ("gmy:X", "gym:ID")]
)
def test_an_unknown_world_is_reported_with_the_nearest_name(name: str, near: str) -> None:
    with pytest.raises(DataError, match=f"{name}.* \\(did you mean '{near}'\\?\\); there are billiards-easy, "):
        make_batch(name, np.arange(1))


PACKAGES = [
    ("push-t", "pymunk", "pusht"),
    ("point-maze-umaze", "gymnasium_robotics", "maze"),
    ("point-maze-umaze", "mujoco", "maze"),
    ("reacher", "mujoco", "reacher"),
    ("doom-rooms", "vizdoom", "doom"),
    ("take-cover", "vizdoom", "doom"),
]


@pytest.mark.parametrize(("name", "package", "extra"), PACKAGES)
def test_a_world_without_its_package_says_what_to_install(name: str, package: str, extra: str) -> None:
    program = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "import numpy as np\n"
        "from jepa.config import UserError\n"
        "from jepa_data.worlds import make_batch\n"
        "try:\n"
        f"    make_batch({name!r}, np.arange(1))\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    path = os.pathsep.join(str(ROOT / part) for part in ("", "data", "probes"))
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert re.fullmatch(f"{name} needs the package {package}, .*pip install 'openjepa\\[{extra}\\]'\n", done.stdout)


@pytest.mark.parametrize("name", WITH_GOALS)
def test_a_place_in_the_image_is_a_goal_there_or_none(name: str) -> None:
    """The way back is the inverse, and a place is shown to be one by the goal image: something changes around it."""
    batch = world(name, range(3))
    point = np.array([[0.3, 0.3], [0.7, 0.3], [0.3, 0.6]])
    goal = batch.goal_at(point)
    if goal is None:
        assert batch.image_point(batch.goal_state()) is None
        return
    assert goal.shape == (3, len(batch.goal_names)) and np.allclose(batch.image_point(goal), point)
    drawn = batch.draw_goals(np.random.default_rng(0))
    places = batch.image_point(drawn)
    assert places is not None
    before = batch.render().astype(int)
    batch.set_goal_state(drawn)
    changed = np.abs(batch.render() - before).sum(-1)
    seen = 0
    for place, image in zip(places, changed, strict=True):
        x, y = (place * len(image)).astype(int)
        seen += image[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].max() > 30
    assert seen >= 2  # one may be under a band of the table
