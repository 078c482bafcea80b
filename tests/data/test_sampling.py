"""Seconds in, frame numbers out."""

import numpy as np
import pytest

from jepa_data.errors import DataError
from jepa_data.sampling import (
    ORDER,
    START,
    action_stride,
    clip_actions,
    clip_generator,
    clip_indices,
    nearest_start,
    possible_starts,
    spread_start,
)

STEADY = np.arange(30) / 10  # 10 frames a second


def test_the_drawing_in_the_docstring() -> None:
    seconds = np.arange(12) / 20
    assert clip_indices(seconds, 2, 4, None).tolist() == [2, 3, 4, 5]
    assert clip_indices(seconds, 2, 4, 10.0).tolist() == [2, 4, 6, 8]
    assert clip_indices(seconds, 2, 4, 7.0).tolist() == [2, 4, 7, 10]


@pytest.mark.parametrize("fps", [None, 10.0, 5.0, 2.5, 3.0, 10 / 3, 20.0])
@pytest.mark.parametrize("ticks", [10, 12800, 90000])
def test_a_clip_may_start_exactly_where_it_still_fits(fps: float | None, ticks: int) -> None:
    seconds = np.round(STEADY * ticks) / ticks
    for frames in (1, 2, 7):
        starts = possible_starts(seconds, frames, fps)
        assert starts == max(0, 30 - int(np.ceil(round((frames - 1) * 10 / (fps or 10), 6))))
        for start in range(starts):
            indices = clip_indices(seconds, start, frames, fps)
            assert indices[0] == start and indices[-1] < 30 and (np.diff(indices) >= 0).all()
        with pytest.raises(DataError, match="the video has 30"):
            clip_indices(seconds, starts, frames, fps)


def test_each_frame_of_a_clip_is_the_one_on_screen_at_its_time() -> None:
    random = np.random.default_rng(0)
    seconds = np.cumsum(random.uniform(0.02, 0.3, 60))
    seconds -= seconds[0]
    for start in range(possible_starts(seconds, 8, 4.0)):
        indices = clip_indices(seconds, start, 8, 4.0)
        for k, i in enumerate(indices):
            time = seconds[start] + k / 4
            assert seconds[i] <= time + 1e-3 and (i == 59 or seconds[i + 1] > time)


def test_actions_between_the_frames_of_a_clip_are_all_there_once() -> None:
    actions = np.stack([np.arange(29), np.arange(29) + 0.5], axis=1)
    indices = clip_indices(STEADY, 4, 5, 10 / 3)
    found = clip_actions(actions, indices, action_stride(10.0, 10 / 3))
    assert found.shape == (4, 6)
    np.testing.assert_array_equal(found.reshape(12, 2), actions[4:16])


def test_a_rate_that_does_not_divide_the_actions_is_refused() -> None:
    assert action_stride(30000 / 1001, 29.97 / 3) == 3 and action_stride(10.0, None) == 1
    for fps in (4.0, 20.0, 9.0):
        with pytest.raises(DataError, match="does not divide 10"):
            action_stride(10.0, fps)


def test_evaluation_clips_are_spread_evenly_and_a_single_one_is_centred() -> None:
    assert spread_start(1, 0, 1) == 0 and spread_start(11, 0, 1) == 5
    assert [spread_start(100, clip, 4) for clip in range(4)] == [12, 37, 62, 87]
    assert [nearest_start(STEADY, t) for t in (0.0, 0.05, 0.1, 0.29999, 99.0)] == [0, 0, 1, 3, 29]


def test_random_numbers_of_a_slot_depend_on_all_that_names_it_and_on_nothing_else() -> None:
    def draw(*name: int) -> float:
        return float(clip_generator(*name).random())

    names = [(s, p, e, i, a) for s in (0, 1) for p in (ORDER, START) for e in (0, 1) for i in (0, 1, 2) for a in (0, 1)]
    assert len({draw(*name) for name in names}) == len(names)
    assert [draw(*name) for name in reversed(names)] == [draw(*name) for name in names][::-1]
    many = [draw(0, START, 0, slot) for slot in range(2000)]
    assert abs(np.mean(many) - 0.5) < 0.03 and abs(np.corrcoef(many[1:], many[:-1])[0, 1]) < 0.08
