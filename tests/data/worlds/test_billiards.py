"""The billiards world: physics, ground truth, images, the Gymnasium API."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from jepa_data.errors import DataError
from jepa_data.worlds import make_batch, make_env
from jepa_data.worlds.billiards import LEVELS, BilliardsBatch


def forces(rng: np.random.Generator, tables: int) -> np.ndarray:
    return rng.uniform(-1, 1, (tables, 2))


@pytest.mark.parametrize("level", LEVELS)
def test_discs_stay_on_the_table_and_apart(level: str) -> None:
    world, rng = BilliardsBatch(level, np.arange(20), image_size=32), np.random.default_rng(0)
    for _ in range(60):
        world.step(forces(rng, 20))
        d = world.state.discs
        low, high = d.radius[..., None], 1 - d.radius[..., None]
        assert ((d.position >= low - 1e-9) & (d.position <= high + 1e-9))[d.present].all()
    gaps = np.linalg.norm(d.position[:, :, None] - d.position[:, None], axis=-1) - (
        d.radius[:, :, None] + d.radius[:, None]
    )
    both = d.present[:, :, None] & d.present[:, None] & ~np.eye(d.radius.shape[1], dtype=bool)
    # Three discs pressed together may overlap a little for a frame; no disc lies inside another.
    assert gaps[both].min() > -0.5 * d.radius.min()


def test_a_collision_keeps_momentum_and_loses_energy() -> None:
    world = BilliardsBatch("easy", np.arange(1), image_size=32)
    d = world.state.discs
    d.present[:] = [[True, True, False]]
    d.position[0, :2], d.velocity[0, :2] = [[0.3, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 0.0]]
    d.drag[:] = 0.0
    momentum, energy = (d.mass[..., None] * d.velocity)[0, :2].sum(0), (d.mass * (d.velocity**2).sum(-1))[0, :2].sum()
    world.step(np.zeros((1, 2)))
    assert d.contact[0, :2].all()
    np.testing.assert_allclose((d.mass[..., None] * d.velocity)[0, :2].sum(0), momentum, atol=1e-12)
    assert 0.2 * energy < (d.mass * (d.velocity**2).sum(-1))[0, :2].sum() < energy


def test_rubber_leaves_the_wall_faster_than_clay() -> None:
    speeds = []
    for bounce in (0.35, 0.95):
        world = BilliardsBatch("easy", np.arange(1), image_size=32)
        d = world.state.discs
        d.present[:] = [[True, True, False]]
        d.position[0, :2], d.velocity[0, 1], d.bounce[0, 1] = [[0.8, 0.8], [0.12, 0.3]], [-1.0, 0.0], bounce
        world.step(np.zeros((1, 2)))
        speeds.append(d.velocity[0, 1, 0])
    assert speeds[0] == pytest.approx(0.35, rel=0.05)
    assert speeds[1] == pytest.approx(0.95, rel=0.05)


def test_an_episode_does_not_depend_on_its_neighbors() -> None:
    alone, among = BilliardsBatch("hard", np.array([7])), BilliardsBatch("hard", np.arange(10))
    for _ in range(10):
        alone.step(np.full((1, 2), 0.5))
        among.step(np.full((10, 2), 0.5))
    np.testing.assert_array_equal(alone.render()[0], among.render()[7])
    np.testing.assert_array_equal(alone.states()[0], among.states()[7])
    other = BilliardsBatch("hard", np.array([7]), seed=1)
    assert (other.render() != BilliardsBatch("hard", np.array([7])).render()).any()


def test_a_copy_moves_on_its_own() -> None:
    world = BilliardsBatch("easy", np.arange(3))
    before, copy = world.states(), world.take(np.array([0, 0, 2]))
    copy.step(np.ones((3, 2)))
    np.testing.assert_array_equal(world.states(), before)
    np.testing.assert_array_equal(copy.states()[0], copy.states()[1])


def test_the_image_shows_the_puck_where_the_state_says() -> None:
    world = BilliardsBatch("easy", np.arange(30), image_size=128)
    world.state.discs.present[:, 1:] = False
    lit = world.render().astype(float).sum(-1) - 60
    lit[lit < 10] = 0
    y, x = np.indices((128, 128)) + 0.5
    center = np.stack([(lit * x).sum((1, 2)), (lit * y).sum((1, 2))], -1) / lit.sum((1, 2))[:, None] / 128
    np.testing.assert_allclose(center, world.state.discs.position[:, 0], atol=2e-3)


def test_discs_are_anti_aliased_and_keep_their_area_at_any_place() -> None:
    world = BilliardsBatch("easy", np.arange(50), image_size=32)
    world.state.discs.present[:, 1:] = False
    light = world.render().astype(float) - 20
    area = light[..., 0].clip(0).sum((1, 2)) / (0.95 * 255 - 20)
    np.testing.assert_allclose(area, np.pi * (0.075 * 32) ** 2, rtol=0.05)


def test_what_lies_wholly_under_the_band_is_hidden_from_the_image_and_marked() -> None:
    world = BilliardsBatch("medium", np.arange(1))
    world.set_goal_state(world.state.look.band.mean(-1, keepdims=True).repeat(2, -1))
    hidden = world.render()
    world.state.discs.present[:, 0] = False
    np.testing.assert_array_equal(hidden, world.render())
    world.state.discs.present[:, 0] = True
    assert world.states()[0, world.state_names.index("puck.visible")] == 0
    world.set_goal_state(np.array([[0.1, 0.5]]))
    assert world.states()[0, world.state_names.index("puck.visible")] == 1


def test_absent_discs_are_nan_and_labels_say_how_many_there_are() -> None:
    world = BilliardsBatch("easy", np.arange(40))
    states = world.states().reshape(40, 3, 6)
    present = ~np.isnan(states[:, 1:, 0])
    np.testing.assert_array_equal(present.sum(1), world.labels["bodies"])
    assert set(world.labels["bouncy"][world.labels["bodies"] == 0]) == {-1}
    assert set(world.labels["bouncy"][world.labels["bodies"] > 0]) == {0, 1}


def test_the_environment_passes_gymnasiums_own_check() -> None:
    check_env(make_env("billiards-easy", image_size=32), skip_render_check=True)


def test_reaching_the_goal_is_a_success() -> None:
    env = make_env("billiards-easy", image_size=32)
    _, info = env.reset(seed=0, options={"episode": 3})
    far = info["distance"]
    start = (info["state"]["puck.x"], info["state"]["puck.y"])
    _, info = env.reset(seed=0, options={"episode": 3, "goal": start})
    assert info["success"] and info["distance"] < 1e-6 < far


def test_an_unknown_world_is_named_with_the_ones_there_are() -> None:
    with pytest.raises(DataError, match="billiards-easy"):
        make_batch("billiard", np.arange(1))


def test_a_scripted_agent_brings_the_puck_to_its_goal_and_keeps_it_there() -> None:
    world = make_batch("billiards-easy", np.arange(100))
    goal = world.draw_goals(np.random.default_rng(0))
    for _ in range(40):
        world.step(world.expert(goal))
    assert (world.distance(goal) < world.radius).mean() > 0.95


def test_before_a_flickering_mosaic_the_discs_move_as_on_the_easy_table() -> None:
    easy = BilliardsBatch("easy", np.arange(12), image_size=48)
    flicker = BilliardsBatch("flicker", np.arange(12), image_size=48)
    rng = np.random.default_rng(0)
    images = []
    for _ in range(8):
        np.testing.assert_array_equal(flicker.states(), easy.states())
        images.append(np.stack([easy.render(), flicker.render()]).astype(float))
        actions = forces(rng, 12)
        easy.step(actions)
        flicker.step(actions)
    plain, mosaic = np.stack(images, 1)  # [frame, episode, size, size, 3]
    puck = (plain == np.array([242, 217, 64])).all(-1)  # not its rim, which mixes with what lies behind
    assert puck.mean() > 0.005
    np.testing.assert_array_equal(plain[puck], mosaic[puck])
    empty = (plain.max(-1) < 21).all(0)  # never crossed by a disc
    noise = mosaic[:, empty].reshape(8, -1)
    assert np.abs(np.corrcoef(noise)[~np.eye(8, dtype=bool)]).max() < 0.1, "frames have unrelated mosaics"
    assert noise.max() <= 0.7 * 255 + 1
