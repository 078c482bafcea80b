"""`make bench`: against other projects' own code, where it is installed; what is missing is skipped.

    planning    pip install stable-worldmodel                    its `CEMSolver` and `LeWM`
    loading     VJEPA2=a checkout of facebookresearch/vjepa2     its `VideoDataset` and transform

Both sides plan with the same sizes (the MLP: the same weights), and read the same videos. What counts is CPU time, on
one thread.
"""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from jepa.planners.cem import CEM
from jepa.planners.cost import goal_distance
from jepa.predictors.causal import CausalPredictor
from jepa.predictors.mlp import MLPPredictor
from jepa_data.config import StreamConfig
from jepa_data.pack.pack import Packing, open_corpus, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.stream.loader import make_loader
from tests.bench.bench_data import BATCH, FRAMES, SIDE, STRIDE, videos
from tests.bench.clouds import RATE

__all__ = ["videos"]  # fixture
pytestmark = pytest.mark.usefixtures("one_thread")
Compare = Callable[..., float]
SAMPLES, ELITES, ITERATIONS, HORIZON, ACTION = 300, 30, 30, 5, 4


class CpuTime:
    """A work that is counted by its CPU time."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.work, self.seconds = work, 0.0

    def __call__(self) -> None:
        began = time.process_time()
        self.work()
        self.seconds = time.process_time() - began


class Images(nn.Module):
    """A linear encoder that both sides call: planning is compared, not encoders."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(3 * 4 * 4, width)

    def forward(self, images: Tensor, interpolate_pos_encoding: bool = True) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.map(images.flatten(1))[:, None])


class TheirMLP(nn.Module):
    """Our MLP as a predictor of stable-worldmodel's LeWM, layer by layer as its own classes are written."""

    num_frames = 1

    def __init__(self, ours: MLPPredictor) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, emb: Tensor, actions: Tensor) -> Tensor:
        hidden = self.ours.enter(torch.cat([emb[:, 0], actions[:, 0]], -1))
        for block in self.ours.blocks:
            hidden = hidden + block(hidden)
        return emb + self.ours.leave(hidden)[:, None]


@dataclass
class Pair:
    """Dynamics of ours, and a LeWM of stable-worldmodel's that does the same work."""

    encoder: Images
    ours: Any
    theirs: nn.Module


def mlp(hidden: int) -> Pair:
    from stable_worldmodel.wm.lewm.lewm import LeWM  # pyright: ignore[reportMissingImports]

    ours = MLPPredictor(MLPPredictor.Config(hidden=hidden), 64, ACTION).eval()
    encoder = Images(64)
    return Pair(encoder, ours, LeWM(encoder, TheirMLP(ours), ours.scale_actions).eval())


def causal(width: int) -> Pair:
    """LeWM's predictor, two layers deep: theirs reads the last three frames again in every step."""
    from stable_worldmodel.wm.lewm import module  # pyright: ignore[reportMissingImports]
    from stable_worldmodel.wm.lewm.lewm import LeWM  # pyright: ignore[reportMissingImports]

    heads, depth, window = 4, 2, 3
    sizes = {"hidden": width, "depth": depth, "heads": heads, "head_dim": width // heads, "window": window}
    ours = CausalPredictor(CausalPredictor.Config(conditioning="adaln", **sizes), width, ACTION).eval()
    predictor = module.Predictor(
        num_frames=window,
        depth=depth,
        heads=heads,
        dim_head=width // heads,
        mlp_dim=4 * width,
        input_dim=width,
        hidden_dim=width,
    )
    encoder = Images(width)
    return Pair(encoder, ours, LeWM(encoder, predictor, module.Embedder(ACTION, ACTION, width)).eval())


MODELS = {"mlp_64": lambda: mlp(64), "mlp_384": lambda: mlp(384), "causal_64": lambda: causal(64)}
MODELS |= {"causal_192": lambda: causal(192)}


@pytest.mark.parametrize("episodes", [1, 8])
@pytest.mark.parametrize("model", MODELS)
def test_one_cem_call_against_stable_worldmodel(compare: Compare, model: str, episodes: int) -> None:
    solvers = pytest.importorskip("stable_worldmodel.solver")
    policy = pytest.importorskip("stable_worldmodel.policy")
    import gymnasium

    torch.manual_seed(0)
    pair = MODELS[model]()
    images, goals = torch.randn(2, episodes, 1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    # Its LeWM takes one episode at a time, which is the solver's default.
    solver = solvers.CEMSolver(pair.theirs, 1, SAMPLES, 1, ITERATIONS, ELITES, seed=0)
    plan = policy.PlanConfig(horizon=HORIZON, receding_horizon=HORIZON)
    solver.configure(action_space=gymnasium.spaces.Box(-1, 1, (episodes, ACTION)), n_envs=episodes, config=plan)
    planner = CEM(CEM.Config(samples=SAMPLES, elites=ELITES, iterations=ITERATIONS, std=1.0))

    def theirs() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            solver.solve({"pixels": images, "goal": goals, "action": torch.zeros(episodes, 1, ACTION)})

    @torch.no_grad()
    def ours() -> None:
        z = pair.encoder(images.flatten(0, 1)).last_hidden_state[:, None]
        goal = pair.encoder(goals.flatten(0, 1)).last_hidden_state
        state = pair.ours.initial_state(z, torch.zeros(episodes, 0, ACTION))
        cost = goal_distance(pair.ours, state, goal, running_cost_weight=0.0)
        planner.plan(cost, torch.zeros(episodes, HORIZON, ACTION), torch.Generator().manual_seed(0))

    compare(
        f"peer_cem_{model}_{episodes}",
        CpuTime(ours),
        CpuTime(theirs),
        f"CEM {SAMPLES} x {ITERATIONS} x {HORIZON} for {episodes} episode(s), {model.replace('_', ' of width ')}, one "
        "thread, against stable-worldmodel's CEMSolver and LeWM (CPU time)",
        rounds=7 if episodes == 1 else 3,
    )


def their_loader(videos: Path, tmp_path: Path) -> Iterable[object]:
    """V-JEPA 2's `VideoDataset` with its pretraining transform. Both sides decode in this process: the workers cost the
    same."""
    checkout = os.environ.get("VJEPA2")
    if not checkout:
        pytest.skip("VJEPA2 names no checkout of facebookresearch/vjepa2")
    if checkout not in sys.path:
        sys.path.append(checkout)
    dataset = pytest.importorskip("src.datasets.video_dataset")
    transforms = pytest.importorskip("app.vjepa.transforms")
    table = tmp_path / "videos.csv"
    table.write_text("".join(f"{path} 0\n" for path in sorted(videos.glob("*.mp4")) * 1000))
    transform = transforms.make_transforms(random_resize_aspect_ratio=(0.75, 1.35), crop_size=SIDE)
    data = dataset.VideoDataset([str(table)], frames_per_clip=FRAMES, frame_step=STRIDE, transform=transform)
    return DataLoader(data, batch_size=BATCH, sampler=range(len(data)))


RECIPES = {
    "files": Recipe(video="copy", max_seconds=None, fps=None),
    "packed": Recipe(),
    "packed at the rate of the clips": Recipe(fps=RATE / STRIDE, gop=4),
}


@pytest.mark.parametrize("kind", RECIPES)
def test_clips_against_the_dataset_of_vjepa2(compare: Compare, kind: str, videos: Path, tmp_path: Path) -> None:
    theirs = iter(their_loader(videos, tmp_path))
    shards = tmp_path / "shards"
    pack(open_corpus(videos), shards, Packing(RECIPES[kind], test_share=0.0))
    rate = {"stride": STRIDE} if kind == "files" else {"fps": RATE / STRIDE}
    settings = {"shards": str(shards), "batch_size": BATCH, "clip_frames": FRAMES, "image_size": SIDE, "crop": {}}
    config = StreamConfig.model_validate(settings | rate | {"workers": 0})
    ours = iter(make_loader(config, "train", seed=0, total_batches=100_000))
    compare(
        f"peer_data_{kind.replace(' ', '_')}",
        CpuTime(lambda: next(ours)),
        CpuTime(lambda: next(theirs)),
        f"360p video, 1 clip a video, no cache, {kind}, against V-JEPA 2's VideoDataset on the files (CPU per clip)",
        count=BATCH,
    )
