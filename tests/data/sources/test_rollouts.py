"""Recording a world to shards."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.loader import make_loader
from jepa_data.worlds import make_batch

SMALL = Recording("billiards-easy", episodes=8, frames=12, image_size=32)


def test_the_same_recording_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        record(SMALL, tmp_path / name)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert "train-000000.tar" in files and "test-000000.tar" in files
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_replaying_the_recorded_actions_gives_the_recorded_states_and_images(tmp_path: Path) -> None:
    record(SMALL, tmp_path / "shards")
    config = StreamConfig(shards=str(tmp_path / "shards"), batch_size=4, clip_frames=12)
    for batch in make_loader(config, "train", seed=0, shuffle=False):
        assert batch.actions is not None and batch.states is not None
        world = make_batch(
            "billiards-easy", np.array([int(key.rsplit("-", 1)[1]) for key in batch.keys]), image_size=32
        )
        for t in range(12):
            np.testing.assert_allclose(batch.states[:, t].numpy(), world.states(), rtol=0, atol=1e-6)
            error = np.abs(batch.video[:, t].permute(0, 2, 3, 1).numpy().astype(int) - world.render())
            assert error.mean() < 2, "the video is compressed, but nearly the image"
            if t < 11:
                world.step(batch.actions[:, t].numpy())
        np.testing.assert_array_equal(batch.labels["bodies"].numpy(), world.labels["bodies"])


def test_crf_0_keeps_nearly_every_pixel(tmp_path: Path) -> None:
    errors = dict[int, float]()
    for crf in (14, 0):
        record(replace(SMALL, crf=crf), tmp_path / str(crf))
        config = StreamConfig(shards=str(tmp_path / str(crf)), batch_size=4, clip_frames=12)
        batch = next(iter(make_loader(config, "train", seed=0, shuffle=False)))
        number = np.array([int(key.rsplit("-", 1)[1]) for key in batch.keys])
        images = make_batch("billiards-easy", number, image_size=32).render()
        errors[crf] = float(np.square(batch.video[:, 0].permute(0, 2, 3, 1).numpy() - images.astype(float)).mean())
    assert errors[0] < 0.25 * errors[14], errors
    with pytest.raises(DataError, match=r"from 0 \(best\) to 51, found 52"):
        replace(SMALL, crf=52)


def test_random_actions_are_held_for_a_while_and_lie_in_the_unit_disc() -> None:
    generators = [np.random.default_rng(episode) for episode in range(200)]
    actions = make_batch("billiards-easy", np.arange(200)).act("random", generators, 40)
    assert np.linalg.norm(actions, axis=-1).max() <= 1 + 1e-6
    held = (actions[:, 1:] == actions[:, :-1]).all(-1).mean()
    assert 0.6 < held < 0.9
    np.testing.assert_allclose(actions.mean((0, 1)), 0, atol=0.05)


def test_a_folder_that_holds_something_is_not_overwritten_unasked(tmp_path: Path) -> None:
    record(SMALL, tmp_path / "shards")
    with pytest.raises(DataError, match="overwrite"):
        record(SMALL, tmp_path / "shards")
    assert record(SMALL, tmp_path / "shards", overwrite=True).splits["train"].episodes == 7


@pytest.mark.parametrize("wrong", [{"episodes": 1}, {"frames": 1}, {"test_share": 0.0}])
def test_a_recording_of_nothing_is_refused(wrong: dict) -> None:
    with pytest.raises(DataError, match="found"):
        Recording(**{"world": "billiards-easy", "episodes": 8, **wrong})
