"""`make bench`: what the choices of the first slice are worth."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jepa.encoders.conv import ConvEncoder
from jepa.planners.cem import CEM
from jepa.planners.cost import goal_distance
from jepa.predictors.mlp import MLPPredictor
from jepa_data.config import StreamConfig
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.loader import make_loader

Compare = Callable[..., float]


def backward(encoder: Callable[[Tensor], Tensor], video: Tensor) -> None:
    encoder(video).square().mean().backward()


def test_wide_stem_against_four_layers_of_stride_2(compare: Compare) -> None:
    layers: list[nn.Module] = []
    for inputs, outputs in ((6, 16), (16, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.GroupNorm(4, outputs), nn.SiLU()]
    usual = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 256), nn.SiLU(), nn.Linear(256, 64))
    ours, video = ConvEncoder(ConvEncoder.Config(width=64), 64, 4), torch.randn(32, 10, 3, 64, 64)
    compare(
        "conv_stem",
        lambda: backward(ours, video),
        lambda: backward(usual, video.reshape(160, 6, 64, 64)),
        "ConvEncoder, forward and backward of 32 clips of 10 frames at 64 px, against k4 s2 16-32-64-64",
    )


def test_all_episodes_at_once_against_one_after_the_other(compare: Compare) -> None:
    dynamics, planner = MLPPredictor(MLPPredictor.Config(), 64, 4), CEM(CEM.Config())
    z, goal = torch.randn(50, 1, 1, 64), torch.randn(50, 1, 64)

    def plan(rows: slice) -> None:
        state = dynamics.initial_state(z[rows], torch.zeros(len(z[rows]), 0, 4))
        start = torch.zeros(len(z[rows]), 6, 4)
        planner.plan(goal_distance(dynamics, state, goal[rows]), start, torch.Generator().manual_seed(0))

    compare(
        "planning_batched",
        lambda: plan(slice(0, 50)),
        lambda: [plan(slice(i, i + 1)) for i in range(50)],
        "CEM for 50 episodes at once (100 samples, 4 iterations, horizon 6), against a loop over episodes",
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "shards"
    record(Recording("billiards-easy", episodes=72), folder)
    return folder


def stream(shards: Path, **settings: object) -> Callable[[], None]:
    """Reads one epoch; the loader, and with it the cache, lives on from call to call."""
    config = StreamConfig.model_validate({"shards": str(shards), "batch_size": 32, "clip_frames": 10, **settings})
    loader = make_loader(config, "train", seed=0, total_batches=2)

    def read() -> None:
        for _ in loader:
            pass

    return read


def test_cache_of_decoded_videos_against_decoding_again(compare: Compare, shards: Path) -> None:
    compare(
        "stream_cache",
        stream(shards),
        stream(shards, cache_mib=0),
        "clips of 10 frames from 40-frame episodes at 64 px, decoded videos kept, against none kept",
    )


def test_indexed_pyav_against_decord(compare: Compare, shards: Path) -> None:
    pytest.importorskip("decord")
    compare(
        "stream_pyav",
        stream(shards, cache_mib=0),
        stream(shards, cache_mib=0, backend="decord"),
        "the same clips, none kept, PyAV with the stored index, against decord",
    )
