"""The camera over a mosaic: what its motions do to the image, and the mosaic itself."""

import numpy as np
import pytest

from jepa_data.worlds.camera import FRAME_SECONDS, MOTIONS, CameraBatch
from jepa_data.worlds.render import make_mosaic, paint_mosaic

SIZE = 48
STILL = np.zeros((1, 2))


def camera(episode: int = 0, **state: object) -> CameraBatch:
    """One camera at rest, upright and at zoom 1, but for `state`."""
    world = CameraBatch(np.array([episode]), image_size=SIZE)
    rest = {"velocity": (0, 0), "log_zoom": 0, "zoom": 0, "angle": 0, "roll": 0}
    for name, value in (rest | state).items():
        getattr(world.state, name)[:] = value
    return world


def moved(world: CameraBatch) -> tuple[np.ndarray, np.ndarray]:
    """The image before and after a frame."""
    before = world.render()[0]
    world.step(STILL)
    return before, world.render()[0]


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Share of pixels that are equal."""
    return float((one == other).all(-1).mean())


def test_a_pan_to_the_right_moves_the_image_to_the_left() -> None:
    before, after = moved(camera(velocity=(3 / SIZE / FRAME_SECONDS, 0)))
    assert agreement(before[:, 3:], after[:, :-3]) > 0.99
    assert agreement(before, after) < 0.8


def test_a_pan_is_along_the_axes_of_the_image_whichever_way_the_camera_is_turned_and_however_it_zooms() -> None:
    before, after = moved(camera(velocity=(0, 2 / SIZE / FRAME_SECONDS), angle=0.7, log_zoom=0.4))
    assert agreement(before[2:], after[:-2]) > 0.99


def test_a_quarter_turn_clockwise_turns_the_image_counterclockwise() -> None:
    before, after = moved(camera(roll=np.pi / 2 / FRAME_SECONDS))
    assert agreement(np.rot90(before), after) > 0.99


def test_zooming_in_twice_enlarges_the_middle() -> None:
    before, after = moved(camera(zoom=np.log(2) / FRAME_SECONDS))
    middle = before[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4]
    assert agreement(middle.repeat(2, 0).repeat(2, 1), after) > 0.8  # but for the jagged rims of the cells


def test_the_label_is_what_the_states_say_and_every_motion_occurs() -> None:
    world = CameraBatch(np.arange(400), image_size=32)
    vx, vy, zoom, roll = world.states().T
    turned = np.where(roll > 0, 6, 7)
    zoomed = np.where(zoom > 0, 4, 5)
    panned = np.round(np.arctan2(vy, vx) / (np.pi / 2)).astype(int) % 4
    pans = np.hypot(vx, vy) > 0
    expected = np.where(pans, panned, np.where(zoom != 0, zoomed, turned))
    np.testing.assert_array_equal(world.labels["motion"], expected)
    assert np.bincount(expected, minlength=MOTIONS).min() > 20


def test_the_camera_coasts_unless_it_is_pushed() -> None:
    world = CameraBatch(np.arange(3), image_size=32)
    generators = [np.random.default_rng(e) for e in range(3)]
    assert not world.act("coast", generators, 5).any()
    assert world.act("random", generators, 5).any()
    start = world.states()
    world.step(np.zeros((3, 2)))
    np.testing.assert_array_equal(world.states(), start)
    world.step(np.tile([0.5, 0.0], (3, 1)))
    np.testing.assert_allclose(world.states() - start, np.tile([0.1, 0, 0, 0], (3, 1)), atol=1e-6)


@pytest.mark.parametrize("corner", [0.0, 5.0, -3.5])
def test_a_mosaic_has_the_color_of_the_nearest_point_and_repeats(corner: float) -> None:
    size = 6
    mosaic = make_mosaic(np.array([1, 2], np.uint64), size)
    at = (corner + np.linspace(0, 3, 20)).astype(np.float32)
    x, y = (np.broadcast_to(part, (2, 20, 20)) for part in np.meshgrid(at, at))
    image = paint_mosaic(mosaic, x, y)
    np.testing.assert_array_equal(image, paint_mosaic(mosaic, x + size, y - size))
    column, row = np.meshgrid(np.arange(-6, 12), np.arange(-6, 12))  # of every square around
    for episode in range(2):
        points = mosaic.points[episode, row % size, column % size] + np.stack([column, row], -1)
        colors = mosaic.colors[episode, row % size, column % size].reshape(-1, 3)
        near = points.reshape(-1, 2)
        gaps = np.hypot(x[episode, ..., None] - near[:, 0], y[episode, ..., None] - near[:, 1])
        exact = np.equal(image[episode], colors[gaps.argmin(-1)]).all(-1)
        assert exact.mean() > 0.98  # only squares that touch a pixel's own are tried: rarely, one beyond is nearer


def test_mosaics_of_neighboring_keys_have_nothing_in_common() -> None:
    colors = make_mosaic(np.arange(200, dtype=np.uint64), 8).colors.reshape(200, -1)
    assert abs(colors.mean() - 0.5) < 0.01 and abs(colors.std() - 12**-0.5) < 0.01
    correlation = np.corrcoef(colors)[~np.eye(200, dtype=bool)]
    assert abs(correlation.mean()) < 0.01 and np.abs(correlation).max() < 0.4  # of 192 numbers: 1/14 by chance
