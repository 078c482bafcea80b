"""Errors of paths: known ones, and those of agents that follow a recording or do not."""

import numpy as np
import pytest

from jepa_probes.planning.tasks import Protocol, Tasks
from jepa_probes.planning.trajectory import Walk, errors, trajectory_errors


def path(*poses: tuple[float, float, float]) -> np.ndarray:
    return np.array([poses], dtype=float)


def test_errors_of_known_paths() -> None:
    straight = path((0, 0, 0), (1, 0, 0), (2, 0, 0))
    same = errors(straight, straight)
    assert same.ate == same.rpe == 0
    slow = errors(path((0, 0, 0), (0.5, 0, 0), (1, 0, 0)), straight)
    assert slow.ate == pytest.approx(((0.25 + 1) / 2) ** 0.5) and slow.rpe == pytest.approx(0.5)


def test_a_move_is_seen_from_its_own_pose() -> None:
    east = path((0, 0, 0), (1, 0, 0), (2, 0, 0))
    north = path((0, 0, np.pi / 2), (0, 1, np.pi / 2), (0, 2, np.pi / 2))
    apart = errors(north, east)
    assert apart.rpe == pytest.approx(0, abs=1e-12)  # both walk ahead
    assert apart.ate == pytest.approx(((2 + 8) / 2) ** 0.5)


def tasks(**settings) -> Tasks:
    pytest.importorskip("vizdoom")
    given = {"world": "doom-rooms", "world_version": 1, "image_size": 32, "tasks": 4, "steps": 6, "radius": 1.0}
    return Tasks(
        Protocol(**given | {"min_distance": 1.0, "seed": 0, "goal_offset": 6, "goal_policy": "noisy-expert"} | settings)
    )


def test_who_repeats_the_recording_makes_no_error_and_who_does_not_makes_one() -> None:
    given = tasks()
    assert given.recorded is not None
    queue = list(given.recorded.swapaxes(0, 1))
    walk = Walk(lambda world: queue.pop(0))
    walk.play(given)
    found = trajectory_errors(given, walk, 1)
    assert found is not None
    assert found["planning"].ate == found["planning"].rpe == 0
    assert found["random"].ate > 10 and found["random"].rpe > 3
    ends = np.linalg.norm((given.goal - given.start().goal_state())[:, :2], axis=-1)
    assert 0 < found["still"].ate < ends.mean()


def test_goals_that_were_not_recorded_have_no_path() -> None:
    given = tasks(goal_offset=None, goal_policy=None)
    assert trajectory_errors(given, Walk(lambda world: np.zeros((4, 3))), 1) is None
