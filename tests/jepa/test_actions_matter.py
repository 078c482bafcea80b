"""On every world: what a short training learns of actions, and that nothing of the future reaches a prediction."""

import os
import re

import pytest
import torch
from torch import Tensor

from jepa.config import from_dict
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa.world_model import LatentWorldModel, block_actions, rollout
from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.loader import make_loader

pytestmark = pytest.mark.usefixtures("one_thread")
TUBELET, STEPS = 2, 6
DATA = {"clip_frames": TUBELET * STEPS, "cache_mib": 200}
WORLDS = (  # name, who acts, pixels of an image, training steps, clips of a step
    ("billiards-easy", "random", 32, 80, 16),
    pytest.param(("two-rooms", "random", 32, 160, 16), marks=pytest.mark.slow),
    pytest.param(("reacher", "random", 32, 80, 16), marks=pytest.mark.slow),
    pytest.param(("two-rooms-random-wall", "random", 64, 800, 32), marks=pytest.mark.slow),  # other walls each time
    pytest.param(("push-t", "pusher", 32, 160, 32), marks=pytest.mark.slow),  # random hands take longer to learn from
    pytest.param(("point-maze-umaze", "random", 32, 160, 32), marks=pytest.mark.slow),
    pytest.param(("doom-rooms", "noisy-expert", 32, 400, 32), marks=pytest.mark.slow),
)


@pytest.fixture(scope="module", params=WORLDS, ids=lambda world: world[0])
def learned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A trained model, with the latents [B, S, N, D] and action blocks [B, S-1, A] of clips that it has not seen."""
    world, policy, size, steps, batch = request.param
    folder = tmp_path_factory.mktemp(world)
    recording = Recording(world, episodes=120, frames=40, image_size=size, policy=policy)
    try:
        record(recording, folder / "data")
    except DataError as error:
        if os.environ.get("CI") or not re.search("(pip|apt) install", str(error)):
            raise
        pytest.skip(f"{world} is not here: {error}")
    data = {"shards": str(folder / "data"), "batch_size": batch, **DATA}
    description = {
        "run": str(folder / "run"),
        "data": data,
        "encoder": {"kind": "conv", "width": 16, "channels": 16, "hidden": 64, "tubelet": TUBELET},
        "method": {
            "kind": "lewm",
            "directions": 64,
            "sigreg_samples": "pooled",
            "inverse_weight": 10.0,
            "predictor": {"hidden": 128, "normalize_actions": False},
        },
        "optimizer": {"lr": 2e-3, "weight_decay": 1e-5},
        "schedule": {"kind": "cosine"},
        "trainer": {"steps": steps, "device": "cpu", "precision": "fp32"},
    }
    model = pretrain(from_dict(description, PretrainConfig))
    held_out = StreamConfig.model_validate(data | {"clips_per_video": 4})
    batches = list(make_loader(held_out, "test", seed=1, shuffle=False))
    z = torch.cat([model.encode(batch.video) for batch in batches])
    actions = torch.cat([batch.actions for batch in batches if batch.actions is not None])
    return model, z, block_actions(actions, TUBELET)


def imagined(model: LatentWorldModel, z: Tensor, actions: Tensor) -> Tensor:
    assert model.dynamics is not None
    with torch.no_grad():
        return rollout(model.dynamics, model.dynamics.initial_state(z[:, :1], actions[:, :0]), actions[:, None])[:, 0]


def test_a_trained_model_beats_that_nothing_changes(learned) -> None:
    model, z, actions = learned
    error = (imagined(model, z, actions) - z[:, 1:]).square().mean()
    nothing_changes = (z[:, :1] - z[:, 1:]).square().mean()
    assert error < 0.8 * nothing_changes


def test_other_clips_actions_make_its_prediction_worse(learned) -> None:
    model, z, actions = learned
    own, others = (
        (imagined(model, z, taken) - z[:, 1:]).square().mean()
        for taken in (actions, actions.roll(len(actions) // 2, 0))
    )
    assert others > 1.1 * own


def test_no_later_action_or_frame_reaches_a_prediction(learned) -> None:
    model, z, actions = learned
    changed = actions.clone()
    changed[:, 3:] = -changed[:, 3:]
    first, second = imagined(model, z, actions), imagined(model, z, changed)
    assert torch.equal(first[:, :3], second[:, :3]) and not torch.equal(first[:, 3], second[:, 3])
    # latents of a step are those of its own frames: the encoder does not look ahead either
    size = model.preprocessing.image_size
    video = torch.randint(0, 256, (2, TUBELET * STEPS, 3, size, size), dtype=torch.uint8)
    later = video.clone()
    later[:, 2 * TUBELET :] = 0
    assert torch.equal(model.encode(video)[:, :2], model.encode(later)[:, :2])
