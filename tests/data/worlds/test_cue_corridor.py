"""The cue, the corridor and the fork: what shows when, and that only the cue tells the side."""

import numpy as np
import pytest

from jepa_data.worlds import make_goal_batch
from jepa_data.worlds.cue_corridor import CUE_FRAMES, GOLD, GRAY, LENGTHS


def walked(world, actions) -> list[np.ndarray]:
    images = [world.render()]
    for action in actions:
        world.step(np.full((len(world), 1), float(action)))
        images.append(world.render())
    return images


@pytest.mark.parametrize("length", [10, 100])
def test_the_room_is_gold_on_the_side_of_the_cue_and_gray_on_the_other(length: int) -> None:
    world = make_goal_batch(f"cue-corridor-{length}", np.arange(20), image_size=32)
    images = walked(world, [1.0] * (length + 1))
    up = world.labels["cue"] == 1
    assert up.any() and not up.all()
    np.testing.assert_array_equal(world.goal_state()[:, 0], np.where(up, 1, -1))
    np.testing.assert_array_equal((images[-1] == np.where(up[:, None], GOLD, GRAY)[:, None, None]).all((1, 2, 3)), True)
    assert (images[-2] != images[-1]).any((1, 2, 3)).all(), "the room begins one step after the fork"
    there = world.states()
    world.step(np.full((20, 1), -1.0))
    np.testing.assert_array_equal(world.states(), there)


def test_two_episodes_that_differ_in_the_cue_look_alike_from_the_third_step_until_the_room() -> None:
    world = make_goal_batch("cue-corridor-10", np.zeros(2, dtype=int), image_size=48)
    world.state.cue[:] = 0, 1
    images = walked(world, [0.3] * 10)
    different = [bool((image[0] != image[1]).any()) for image in images]
    assert different == [True] * CUE_FRAMES + [False] * (11 - CUE_FRAMES)
    world.step(np.zeros((2, 1)))
    assert (world.render()[0] != world.render()[1]).all(-1).all(), "but one of the two rooms is gold"


def test_the_goal_image_shows_neither_side_nor_cue() -> None:
    world = make_goal_batch("cue-corridor", np.arange(6), image_size=32)
    world.set_goal_state(world.draw_goals(np.random.default_rng(0)))
    assert len(np.unique(world.render().reshape(-1, 3), axis=0)) == 1
    assert (world.distance(np.ones((6, 1))) < world.radius).all()


def test_lengths_are_drawn_and_short_ones_more_often() -> None:
    lengths = make_goal_batch("cue-corridor", np.arange(1000), image_size=32).state.length
    assert lengths.min() == LENGTHS[0] and 90 < lengths.max() <= LENGTHS[1]
    assert 15 < np.median(lengths) < 25
