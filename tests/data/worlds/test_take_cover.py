"""take-cover: a player moves sideways until fireballs kill it, and each tic that it survives is rewarded."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vizdoom", reason="take-cover needs vizdoom: pip install 'openjepa[doom]'")

from jepa_data.errors import DataError
from jepa_data.sources.rollouts import Recording, record
from jepa_data.worlds.doom.take_cover import TICS, TakeCoverBatch, _idle

Y, HEALTH, REWARD, TERMINATED = range(4)  # of the states


def made(*episodes: int, **settings: int) -> TakeCoverBatch:
    return TakeCoverBatch(np.array(episodes), **{"image_size": 32} | settings)


def test_the_player_goes_left_or_right_beyond_a_third_and_stands_below() -> None:
    world = made(0, 0, 0, 0)
    for _ in range(5):
        world.step(np.array([[-1.0], [-0.3], [0.3], [1.0]]))
    left, stood, also_stood, right = world.states()[:, Y]
    assert left > stood + 20 and right < stood - 20 and stood == also_stood == made(0).states()[0, Y]


def test_what_appears_differs_by_seed_and_episodes_end_with_the_player() -> None:
    worlds = [made(0, 1, seed=seed) for seed in (0, 1)]
    earned = np.zeros((2, 2))
    for _ in range(400):
        for number, world in enumerate(worlds):
            going = ~world.terminated()
            world.step(np.zeros((2, 1)))
            states = world.states()
            assert (states[going, REWARD] <= TICS).all() and (states[going, REWARD] >= 0).all()
            earned[number, going] += states[going, REWARD]
        if all(world.terminated().all() for world in worlds):
            break
    assert len(np.unique(earned)) > 2 and (earned > 100).all(), "other monsters, and none kills at once"
    assert (worlds[0].states()[:, TERMINATED] == 1).all()
    last, image = worlds[0].states(), worlds[0].render()
    worlds[0].step(np.ones((2, 1)))
    np.testing.assert_array_equal(worlds[0].states(), last)
    np.testing.assert_array_equal(worlds[0].render(), image)


def test_games_play_the_next_episodes() -> None:
    made(0, 1, 2)
    waiting = len(_idle(32, os.getpid()))
    assert waiting >= 3
    world = made(5, 6)
    assert len(_idle(32, os.getpid())) == waiting - 2
    del world
    assert len(_idle(32, os.getpid())) == waiting


def test_recordings_hold_rewards_and_stop_at_the_end(tmp_path: Path) -> None:
    about = record(Recording("take-cover", episodes=3, frames=220, image_size=32), tmp_path / "shards")
    assert about.state_names[-2:] == ("reward", "terminated") or list(about.state_names[-2:]) == [
        "reward",
        "terminated",
    ]
    assert sum(split.frames for split in about.splits.values()) < 3 * 220


def test_without_the_scenario_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vizdoom.scenarios_path", str(tmp_path))
    with pytest.raises(DataError, match=r"scenario take_cover, expected .*take_cover.cfg: pip install"):
        made(0, image_size=40)
