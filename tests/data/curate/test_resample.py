"""Actions and states of any clock come to that of the frames, or are named."""

import io
from typing import Any

import numpy as np
import pytest

from jepa_data.curate.config import Resample
from jepa_data.curate.resample import Clocked, resampled
from jepa_data.errors import DecodeError

FRAMES = np.arange(6) / 10.0  # six frames, ten a second


def clocked(metadata: dict[str, Any], members: dict[str, bytes] | None = None, **how: Any) -> Clocked:
    return resampled(members or {}, metadata, FRAMES, Resample.model_validate(how))


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values, np.float32), allow_pickle=False)
    return buffer.getvalue()


def record(seconds: Any, values: Any) -> dict[str, Any]:
    return {"seconds": np.asarray(seconds).tolist(), "values": np.asarray(values).tolist()}


def test_every_frame_but_the_last_gets_an_action_and_every_frame_a_state() -> None:
    times = np.linspace(-0.03, 0.6, 47)
    found = clocked({"actions": record(times, np.ones((47, 2))), "states": record(times, times[:, None]), "other": 1})
    assert found.actions is not None and found.states is not None
    assert found.actions.shape == (5, 2) and found.states.shape == (6, 1)
    assert found.widths == (2, 1) and found.metadata == {"other": 1}


def test_states_are_read_from_the_line_between_two_measurements() -> None:
    times = np.array([0.0, 0.07, 0.21, 0.3, 0.44, 0.52])
    found = clocked({"states": record(times, np.stack([3 * times + 1, -times], axis=1))})
    assert found.states is not None
    assert np.allclose(found.states, np.stack([3 * FRAMES + 1, -FRAMES], axis=1), atol=1e-6)


def test_the_last_state_is_never_one_of_the_future() -> None:
    times = np.array([0.0, 0.09, 0.19, 0.31, 0.39, 0.51])
    found = clocked({"states": record(times, np.arange(6.0)[:, None])}, states="last")
    assert found.states is not None and found.states[:, 0].tolist() == [0, 1, 2, 2, 4, 4]


def test_a_mean_action_is_the_integral_of_what_held() -> None:
    times = np.array([0.0, 0.05, 0.1, 0.18, 0.25, 0.4])
    commands = np.array([1.0, 3.0, 5.0, 7.0, 9.0, 11.0])
    fine = np.arange(0, 0.5, 1e-5) + 5e-6  # an independent sum over tiny steps
    held = commands[np.searchsorted(times, fine, side="right") - 1]
    found = clocked({"actions": record(times, commands[:, None])})
    assert found.actions is not None
    assert np.allclose(found.actions[:, 0], held.reshape(5, -1).mean(axis=1), atol=1e-3)


def test_the_last_command_and_the_sum_of_steps() -> None:
    times, values = [0.0, 0.04, 0.1, 0.16, 0.2, 0.3, 0.35, 0.39, 0.4, 0.5], np.arange(10.0)[:, None]
    last, total = (clocked({"actions": record(times, values)}, actions=how).actions for how in ("last", "sum"))
    assert last is not None and total is not None
    assert last[:, 0].tolist() == [0, 2, 4, 5, 8]
    assert total[:, 0].tolist() == [0 + 1, 2 + 3, 4, 5 + 6 + 7, 8]  # the step at the last frame is of the next one


def test_commands_at_the_rate_of_the_frames_come_through_unchanged() -> None:
    commands = np.random.default_rng(0).normal(size=(5, 3))
    for how in ("mean", "last", "sum"):
        found = clocked({"actions": record(FRAMES[:-1] + 2e-4, commands)}, actions=how)
        assert found.actions is not None and np.allclose(found.actions, commands, atol=0.02)


def test_another_clock_is_known_by_when_the_video_began() -> None:
    unix = 1_760_000_000.25
    metadata = {"video_began": unix, "states": record(unix + FRAMES, FRAMES[:, None])}
    found = clocked(metadata)
    assert found.states is not None and np.allclose(found.states[:, 0], FRAMES, atol=1e-5)
    assert found.metadata == {}
    with pytest.raises(DecodeError, match="Do both count from the first frame"):
        clocked({"states": metadata["states"]})


def test_arrays_with_times_beside_them_are_moved_and_those_in_step_are_left_alone() -> None:
    times = np.arange(0, 0.55, 0.02)
    members = {"actions.npy": npy(np.tile(times[:, None], 2)), "states.npy": npy(np.arange(12).reshape(6, 2))}
    found = clocked({"actions_seconds": times.tolist()}, members)
    assert found.actions is not None and found.states is not None
    assert np.allclose(found.actions[:, 0], FRAMES[:-1] + 0.04, atol=1e-5)  # the mean of five commands
    assert found.states.tolist() == np.arange(12).reshape(6, 2).tolist()
    assert found.metadata == {}


def test_nothing_recorded_is_no_mistake() -> None:
    found = clocked({"caption": "x"})
    assert found.actions is None and found.states is None and found.widths == (0, 0)


@pytest.mark.parametrize(
    ("metadata", "members", "kind", "words"),
    [
        ({}, {"actions.npy": npy(np.ones((7, 2)))}, "out of step", r"7 actions, expected 5 .* \(actions_seconds\)"),
        ({"actions_seconds": [0.0, 0.1]}, {"actions.npy": npy(np.ones((7, 2)))}, "out of step", "shape"),
        ({"states": record([0, 0.1, 0.4, 0.5], np.ones((4, 1)))}, {}, "no measurement", "0.300 s from 0.100 s on"),
        ({"states": record([0.3, 0.4, 0.5], np.ones((3, 1)))}, {}, "no measurement", "0.300 s from 0.000 s on"),
        ({"states": record([0.2, 0.1, 0.5], np.ones((3, 1)))}, {}, "damaged", "do not ascend"),
        ({"actions": {"seconds": [0, 1], "values": [[1], ["x"]]}}, {}, "damaged", "no rows of numbers"),
        ({"actions": {"seconds": [0, 1], "values": [[1], [1, 2]]}}, {}, "damaged", "no rows of numbers"),
        ({"actions": record(FRAMES, np.full((6, 1), np.nan))}, {}, "damaged", "not finite"),
        ({"video_began": "noon", "states": record(FRAMES, np.ones((6, 1)))}, {}, "damaged", "number of seconds"),
        ({}, {"states.npy": b"\x93NUMPY"}, "damaged", "cannot be read"),
    ],
)
def test_what_cannot_be_moved_is_named(
    metadata: dict[str, Any], members: dict[str, bytes], kind: str, words: str
) -> None:
    with pytest.raises(DecodeError, match=words) as caught:
        clocked(metadata, members)
    assert caught.value.kind == kind


def test_a_wider_gap_can_be_allowed() -> None:
    metadata = {"states": record([0, 0.1, 0.4, 0.5], [[0], [1], [4], [5]])}
    found = clocked(metadata, max_gap_seconds=0.3)
    assert found.states is not None and np.allclose(found.states[:, 0], range(6), atol=1e-6)
    assert "states" in metadata  # what was given is not changed
