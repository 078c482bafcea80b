"""The replay buffer: sequences drawn evenly, across the ends of episodes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jepa.config import UserError
from jepa.online.replay import Episode, Replay
from jepa_data.transforms import zero_to_one


def episode(number: int, frames: int) -> Episode:
    """Frame t of episode n has the color 40 n + t, the action and the reward after and at it say the same."""
    values = 40 * number + np.arange(frames)
    images = np.tile(values.astype(np.uint8)[:, None, None, None], (1, 8, 8, 3))
    rewards = values.astype(np.float32)
    rewards[0] = np.nan
    terminated = np.arange(frames) == frames - 1
    return Episode(images, values.astype(np.float32)[:, None], rewards, terminated)


def filled(folder: Path, capacity: int = 1000) -> Replay:
    replay = Replay(folder, capacity)
    for number, frames in enumerate((5, 3, 7)):
        replay.append(number, episode(number, frames))
    return replay


def test_sequences_run_on_across_episodes_and_say_where_one_begins(tmp_path: Path) -> None:
    replay = filled(tmp_path)
    batch = replay.draw(400, 6, torch.Generator().manual_seed(0))
    colors = (zero_to_one(batch.video)[:, :, 0, 0, 0] * 255).round().long()
    stream = torch.tensor([*range(5), *range(40, 43), *range(80, 87)])
    starts = {tuple(stream[i : i + 6].tolist()) for i in range(len(stream) - 5)}
    assert {tuple(row) for row in colors.tolist()} == starts  # every frame starts some sequence, and no other is drawn
    assert batch.first is not None and batch.targets is not None and batch.actions is not None
    torch.testing.assert_close(batch.first, colors % 40 == 0)
    torch.testing.assert_close(batch.targets[..., 0].isnan(), batch.first)
    torch.testing.assert_close(batch.actions[..., 0], colors[:, :-1].float())
    torch.testing.assert_close(batch.targets[..., 1] > 0, (colors == 4) | (colors == 42) | (colors == 86))


def test_the_oldest_episodes_go_and_their_files_with_them(tmp_path: Path) -> None:
    replay = filled(tmp_path, capacity=11)
    assert list(replay.episodes) == [1, 2] and len(replay) == 10
    assert len(list(tmp_path.glob("*.npz"))) == 3  # a checkpoint may still need the first
    replay.forget()
    again = Replay(tmp_path, 11)
    again.restore([1, 2])
    for number, one in replay.episodes.items():
        for name, array in vars(one).items():
            np.testing.assert_array_equal(array, getattr(again.episodes[number], name))
    drawn = [each.draw(4, 3, torch.Generator().manual_seed(1)).video for each in (replay, again)]
    assert torch.equal(*drawn)


def test_too_few_frames_and_damaged_files_are_named(tmp_path: Path) -> None:
    replay = filled(tmp_path)
    with pytest.raises(UserError, match=r"has 15 frames and replay\.sequence_frames is 16"):
        replay.draw(2, 16, torch.Generator())
    (tmp_path / "000001.npz").write_bytes(b"PK not a zip")
    with pytest.raises(UserError, match=r"000001.npz: missing or damaged"):
        Replay(tmp_path, 100).restore([0, 1])
