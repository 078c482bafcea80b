"""The contract: blocks of actions, rollouts, states that are never changed, and the model that a run leaves behind."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jepa.config import UserError
from jepa.encoders.conv import ConvEncoder
from jepa.predictors.base import LatentState
from jepa.predictors.mlp import MLPPredictor
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing, block_actions, rollout
from jepa_data.decode import get_backend
from jepa_data.shards.encode import encode_mp4


@pytest.fixture
def model() -> LatentWorldModel:
    torch.manual_seed(0)
    return LatentWorldModel(
        ConvEncoder(ConvEncoder.Config(width=8, channels=8, hidden=16), 32, 4),
        MLPPredictor(MLPPredictor.Config(hidden=16), 8, 4),
        LatentSpec(tokens=1, width=8, step_seconds=0.2, frames_per_step=2, action_size=2),
        Preprocessing(32, 10.0, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    ).eval()


def test_a_block_holds_the_actions_between_the_last_frames_of_neighboring_tubelets() -> None:
    actions = torch.arange(7.0)[None, :, None]  # 8 frames: action t takes frame t to t+1
    assert block_actions(actions, 2)[0].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert block_actions(actions, 4)[0].tolist() == [[3, 4, 5, 6]]
    assert torch.equal(block_actions(actions, 1), actions)
    with pytest.raises(ValueError, match="tubelets of 3"):
        block_actions(actions, 3)


def test_a_rollout_equals_single_steps_and_leaves_the_state_as_it_was(model: LatentWorldModel) -> None:
    assert model.dynamics is not None
    z, actions = torch.randn(2, 1, 1, 8), torch.randn(2, 3, 4, 4)
    state = model.dynamics.initial_state(z, actions[:, 0, :0])
    before = state.z.clone()
    imagined = rollout(model.dynamics, state, actions)
    assert imagined.shape == (2, 3, 4, 1, 8)
    assert torch.equal(state.z, before)
    for b, k in ((0, 0), (1, 2)):
        single = LatentState(z[b])
        for h in range(4):
            single, next_latent = model.dynamics.step(single, actions[b, k, h][None])
            torch.testing.assert_close(next_latent.mean()[0], imagined[b, k, h])


def test_states_repeat_row_by_row_and_gather() -> None:
    state = LatentState(torch.arange(3.0).view(3, 1, 1))
    assert state.repeat(2).z.flatten().tolist() == [0, 0, 1, 1, 2, 2]
    assert state.gather(torch.tensor([2, 0])).z.flatten().tolist() == [2, 0]
    assert state.nbytes() == 12


def test_gradients_reach_the_actions(model: LatentWorldModel) -> None:
    assert model.dynamics is not None
    actions = torch.randn(1, 1, 3, 4, requires_grad=True)
    imagined = rollout(model.dynamics, LatentState(torch.randn(1, 1, 8)), actions)
    imagined[:, :, -1].sum().backward()
    assert actions.grad is not None and (actions.grad.abs().sum(-1) > 0).all()


def test_no_latent_sees_a_later_tubelet(model: LatentWorldModel) -> None:
    video = torch.randint(0, 256, (1, 8, 3, 32, 32), dtype=torch.uint8)
    changed = video.clone()
    changed[:, 4:] = 255 - changed[:, 4:]
    assert torch.equal(model.encode(video)[:, :2], model.encode(changed)[:, :2])
    assert not torch.equal(model.encode(video)[:, 2:], model.encode(changed)[:, 2:])


def test_a_video_file_is_read_at_the_rate_and_size_of_the_model(model: LatentWorldModel, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 3)).repeat(16, 1).repeat(16, 2).astype(np.uint8)
    (tmp_path / "clip.mp4").write_bytes(encode_mp4(frames, fps=30.0))
    z = model.encode(tmp_path / "clip.mp4")
    assert z.shape == (1, 5, 1, 8)  # one second: 10 frames at 10 fps, 2 a latent
    small = torch.from_numpy(frames[::3]).permute(0, 3, 1, 2)[None]
    torch.testing.assert_close(z, model.encode(small), atol=0.1, rtol=0.1)


def test_a_still_image_is_a_clip_that_does_not_move(model: LatentWorldModel) -> None:
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(model.encode_image(image), model.encode(torch.stack([image, image], 1))[:, 0])


def test_a_video_shorter_than_one_latent_step_is_refused(model: LatentWorldModel) -> None:
    with pytest.raises(UserError, match="1 frame"):
        model.encode(torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8))


def test_images_of_another_size_are_scaled_as_the_decoders_of_the_training_data_do(model: LatentWorldModel) -> None:
    """What a model sees at play is what it saw in training, where a decoder scaled the video."""
    y, x = np.mgrid[:64, :64]
    image = np.stack([200 * (np.abs(x - 31) <= 1), 255 * np.exp(-((x - 20) ** 2 + (y - 9.5) ** 2) / 8), 3 * x], -1)
    video = np.repeat(image[None].astype(np.uint8), 4, 0)
    mp4 = encode_mp4(video, 10, crf=0)
    backend = get_backend("pyav")
    with backend.open(mp4, backend.probe(mp4)) as reader:
        decoded = torch.from_numpy(reader.frames(np.arange(4), size=(32, 32))).permute(0, 3, 1, 2)
    scaled = model.prepare(torch.from_numpy(video).permute(0, 3, 1, 2)[None])
    difference = (scaled - model.prepare(decoded[None])).abs() * 0.25 * 255
    assert difference.mean() < 1 and difference.max() < 12, "steps of 255"
