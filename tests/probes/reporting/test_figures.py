"""Figures show what they are given: frame for frame, in the same colors everywhere, in files that open."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from jepa.config import UserError
from jepa.decoders.pixels import PixelDecoder
from jepa.encoders.conv import ConvEncoder
from jepa.predictors.mlp import MLPPredictor
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing
from jepa_data.types import ClipBatch
from jepa_data.worlds.billiards import BilliardsBatch
from jepa_probes.reporting import figures
from jepa_probes.reporting.curves import curves, overlay, read_metrics
from jepa_probes.reporting.drawing import PAPER, enlarge, tile, write_gif, write_png
from jepa_probes.reporting.gallery import draw_model, draw_plans

FRAMES = 8


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    """Billiards [3, 8, 3, 32, 32]."""
    world = BilliardsBatch("easy", np.arange(3), image_size=32)
    shown = []
    for _ in range(FRAMES):
        shown.append(world.render())
        world.step(np.full((3, 2), 0.5))
    return torch.from_numpy(np.stack(shown, 1)).permute(0, 1, 4, 2, 3)


def model() -> LatentWorldModel:
    torch.manual_seed(0)
    spec = LatentSpec(tokens=1, width=8, step_seconds=0.2, frames_per_step=2, action_size=2)
    encoder = ConvEncoder(ConvEncoder.Config(width=8, channels=8, hidden=16), 32, 4)
    return LatentWorldModel(
        encoder,
        MLPPredictor(MLPPredictor.Config(hidden=16), 8, 4),
        spec,
        Preprocessing(32, 10.0, (0.5,) * 3, (0.2,) * 3),
    ).eval()


def opened(path) -> tuple[list[np.ndarray], list[int]]:
    """Frames and their durations in ms, as a reader sees them."""
    frames, durations = [], []
    with Image.open(path) as image:
        for t in range(image.n_frames):
            image.seek(t)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
    return frames, durations


def test_a_gif_has_every_frame_and_nearly_its_colors(tmp_path, video):
    frames = enlarge(figures.to_frames(video[0]), 64)
    shown, durations = opened(write_gif(frames, tmp_path / "deep" / "x.gif", fps=5.0, last_seconds=1.0))
    assert len(shown) == FRAMES
    assert durations == [200] * (FRAMES - 1) + [1200]
    assert np.abs(np.stack(shown).astype(int) - frames).mean() < 4


def test_equal_neighbors_stay_frames(tmp_path):
    still = np.full((5, 20, 20, 3), 77, dtype=np.uint8)
    shown, _ = opened(write_gif(still, tmp_path / "still.gif"))
    assert len(shown) == 5 and all((frame == shown[0]).all() for frame in shown)


def test_a_small_thing_keeps_its_color(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 60, (4, 100, 100, 3)).astype(np.uint8)
    frames[:, 10:13, 10:13] = (240, 60, 60)
    shown, _ = opened(write_gif(frames, tmp_path / "x.gif"))
    assert np.abs(shown[2][11, 11].astype(int) - (240, 60, 60)).max() < 16


def test_tiles_hold_their_cells_pixel_for_pixel():
    cells = [[np.full((2, 10, 12, 3), 10 * r + c, dtype=np.uint8) for c in range(3)] for r in range(2)]
    sheet = tile(cells, ["a", "bb"], ["x", "y", "z"])
    for value in (0, 1, 2, 10, 11, 12):
        assert (sheet == value).all(-1).sum() >= 2 * 10 * 12
    assert (sheet[:, 0, 0] == PAPER).all()


def test_a_contact_sheet_shows_first_and_last_frame(video):
    sheet = figures.contact_sheet(video, clips=2, frames=4, seconds_per_frame=0.1)
    height = enlarge(figures.to_frames(video[0, :1]), 96).shape[1]
    assert sheet.shape[1] > 4 * height and sheet.shape[0] > 2 * height
    for t in (0, FRAMES - 1):
        cell = enlarge(figures.to_frames(video[1, t : t + 1]), 96)[0]
        windows = np.lib.stride_tricks.sliding_window_view(sheet, cell.shape)[:, :, 0]
        assert any((windows[y, x] == cell).all() for y, x in np.argwhere(windows[:, :, 0, 0, 0] == cell[0, 0, 0]))


def test_principal_components_find_the_plane_that_data_lie_in():
    g = torch.Generator().manual_seed(0)
    weights = torch.randn(50, 4, 2, generator=g) * torch.tensor([3.0, 1.0])
    features = weights @ torch.linalg.qr(torch.randn(6, 6, generator=g)).Q[:2]
    found = figures.principal_components(features)
    assert found.shape == (50, 4, 3)
    assert found.flatten(0, 1).var(0)[0] > 4 * found.flatten(0, 1).var(0)[1]
    assert found[..., 2].abs().max() < 1e-3


def test_narrow_features_have_empty_components():
    assert figures.principal_components(torch.randn(5, 2))[:, 2].abs().max() == 0


def test_equal_features_have_equal_colors_in_every_clip(video):
    latents = torch.randn(3, 4, 16, 8, generator=torch.Generator().manual_seed(0))
    latents[1, 2, 5] = latents[0, 0, 0]
    frames = figures.pca_video(video, latents)
    assert len(frames) == 4
    side = enlarge(figures.to_frames(video[0, :1])).shape[1]
    top = frames.shape[1] - 6 - side  # the colors are the last row
    left = frames.shape[2] - 3 * (side + 6)
    first = frames[0, top + side // 8, left + side // 8]
    second = frames[2, top + side // 8 + side // 4, left + side + 6 + side // 8 + side // 4]
    assert (first == second).all()


def test_vector_latents_become_traces_that_move(video):
    frames = figures.pca_video(video, torch.randn(3, 4, 1, 8))
    assert len(frames) == 4
    assert all((a != b).any() for a, b in pairwise(frames))
    with_maps = figures.pca_video(video, torch.randn(3, 4, 1, 8), torch.randn(3, 4, 2, 2, 5))
    assert with_maps.shape[1] > frames.shape[1]


def test_tokens_without_a_place_are_refused(video):
    with pytest.raises(ValueError, match="6 tokens are no square grid"):
        figures.pca_video(video, torch.randn(3, 4, 6, 8))


def test_rollouts_keep_their_length(video):
    part = video[:, :5]
    assert len(figures.rollout_video(part, part, part, step_seconds=0.2)) == 5
    strip = figures.rollout_strip(part[0], part[0], part[0], step_seconds=0.2)
    assert strip.ndim == 3 and strip.shape[1] > strip.shape[0]


@pytest.mark.parametrize("imagined", [2, 6])
def test_a_plan_lasts_as_long_as_the_episode(video, imagined):
    real = video[0]
    frames = figures.plan_video(
        real, video[1, 0], video[2, :imagined], frames_per_step=2, reached=True, distance="0.03 m"
    )
    assert len(frames) == FRAMES
    without = figures.plan_video(real, video[1, 0], None, frames_per_step=2, reached=True)
    side = enlarge(figures.to_frames(real[:1])).shape[1]
    assert without.shape[2] == frames.shape[2] - side - 6  # a panel less, and its gap
    panel = frames[:, 6 + 13 + 6 :][:, :side, 6 + 2 * (side + 6) :][:, :, :side]
    expected = enlarge(figures.to_frames(torch.cat([real[:1], video[2, :imagined]])))
    for t in range(FRAMES):
        assert (panel[t] == expected[min(t // 2, imagined)]).all()


def test_curves_are_drawn_for_what_was_logged(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,monitor/effective_rank,speed/clips_per_second,step,train/loss,train/sigreg\n"
        "0,,,10,2.5,30\n0,3.1,,25,,\n0,,180,30,0.1,nan\n0,,,40,-,inf\n"
    )
    metrics = read_metrics(path)
    assert metrics["train/loss"] == [(10, 2.5), (30, 0.1)] and metrics["train/sigreg"] == [(10, 30.0)]
    charts = curves(metrics)
    assert [chart.title for chart in charts] == [
        "loss and its terms",
        "effective rank of the latents",
        "clips per second",
    ]
    for chart in charts:
        for data in (chart.light, chart.dark):
            assert Image.open(io.BytesIO(data)).size[0] > 400 and len(data) < 100_000
    assert curves({}) == []


def test_runs_are_drawn_in_the_same_axes():
    run = {
        "train/loss": [(1, 2.0), (9, 0.1)],
        "monitor/effective_rank": [(5, 3.0)],
        "probe/state_r2": [(5, 0.4), (9, 0.5)],
    }
    alone, both = (
        overlay({"a": run}),
        overlay({"a": run, "b": {"train/loss": [(1, 3.0), (9, 2.0)], "data/bad": [(1, 0)]}}),
    )
    (width, height), size = (Image.open(io.BytesIO(data)).size for data in (alone, both))
    assert (width, height) == size and width > 800 and alone != both
    taller = overlay({"a": run | {"monitor/std": [(1, 1.0)]}})
    assert Image.open(io.BytesIO(taller)).size[1] > 1.5 * height
    with pytest.raises(UserError, match="a, b: nothing was logged yet"):
        overlay({"a": {}, "b": {"data/bad": [(1, 0.0)]}})


def test_the_gallery_of_a_model(tmp_path, video):
    clips = ClipBatch(video, torch.rand(3, FRAMES - 1, 2), None, ("a", "b", "c"), torch.zeros(3))
    paths = draw_model(model(), PixelDecoder(PixelDecoder.Config(), 1, 8, 32).eval(), clips, tmp_path, horizon=10)
    assert [path.name for path in paths] == ["data.png", "pca.gif", "rollout.gif", "rollout.png"]
    assert len(opened(tmp_path / "pca.gif")[0]) == 4
    assert len(opened(tmp_path / "rollout.gif")[0]) == 3  # four latent steps, one of them seen


def test_the_gallery_of_a_model_that_cannot_imagine(tmp_path, video):
    clips = ClipBatch(video, None, None, ("a", "b", "c"), torch.zeros(3))
    assert [p.name for p in draw_model(model(), None, clips, tmp_path)] == ["data.png", "pca.gif"]


def test_the_gallery_of_plans(tmp_path, video):
    real = video[:2].permute(0, 1, 3, 4, 2).numpy()
    decoder, success = PixelDecoder(PixelDecoder.Config(), 1, 8, 32).eval(), np.array([True, False])
    imagined = np.zeros((2, 3, 1, 8), dtype=np.float32)
    paths = draw_plans(
        decoder, real, real[:, 0], imagined, success, tmp_path, frames_per_step=2, fps=10.0, distances=[""] * len(real)
    )
    assert [path.name for path in paths] == ["plan_0.gif", "plan_1.gif"]
    assert [len(opened(path)[0]) for path in paths] == [FRAMES, FRAMES]


def test_a_png_is_the_image(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (9, 7, 3)).astype(np.uint8)
    with Image.open(write_png(image, tmp_path / "x" / "y.png")) as image:
        assert (np.asarray(image) == image).all()
