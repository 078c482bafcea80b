"""The figures of a run, drawn from its model and held-out clips into RUN/figures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from jepa.decoders.base import Decoder
from jepa.world_model import LatentWorldModel, block_actions, rollout
from jepa_data.types import ClipBatch
from jepa_probes.reporting import figures
from jepa_probes.reporting.drawing import write_gif, write_png

COLUMNS = 4  # clips side by side
SEEN = 1  # latents that the dynamics see before they imagine


def draw_model(
    model: LatentWorldModel,
    decoder: Decoder | None,
    clips: ClipBatch,
    folder: Path,
    *,
    horizon: int = 10,
    state_columns: Sequence[int] = (),
) -> list[Path]:
    """data.png, pca.gif and, with a decoder and dynamics, rollout.gif and rollout.png.

    Args:
        clips: held out; the first ones are shown.
        horizon: latent steps imagined; fewer if the clips are shorter.
        state_columns: of `clips.states`, proprioception for dynamics that need it; without it these imagine nothing.
    """
    tubelet, seconds = model.spec.frames_per_step, model.spec.step_seconds
    sheet = figures.contact_sheet(clips.video, seconds_per_frame=seconds / tubelet)
    paths = [write_png(sheet, folder / "data.png")]
    video = clips.video[:COLUMNS]
    z = model.encode_clips(video)
    maps = feature_maps(model, video)
    paths.append(write_gif(figures.pca_video(video, z, maps), folder / "pca.gif", fps=1 / seconds))
    dynamics = model.dynamics
    if decoder is None or dynamics is None or clips.actions is None:
        return paths
    if len(state_columns) != len(model.spec.states):
        return paths
    states = None
    if state_columns and clips.states is not None:
        last = slice(tubelet - 1, SEEN * tubelet, tubelet)
        states = clips.states[:COLUMNS, last][..., list(state_columns)].to(z)
    horizon = min(horizon, z.shape[1] - SEEN)
    blocks = block_actions(clips.actions[:COLUMNS].to(z.device), tubelet)
    with torch.no_grad():
        state = dynamics.initial_state(z[:, :SEEN], blocks[:, : SEEN - 1], states)
        ahead = blocks[:, SEEN - 1 : SEEN - 1 + horizon]
        imagined = decoder.decode(rollout(dynamics, state, ahead[:, None])[:, 0])
    decoded = decoder.decode(z[:, SEEN : SEEN + horizon])
    true = video[:, (SEEN + 1) * tubelet - 1 :: tubelet][:, :horizon]
    moving = figures.rollout_video(true, decoded, imagined, step_seconds=seconds)
    still = figures.rollout_strip(true[0], decoded[0], imagined[0], step_seconds=seconds)
    return [
        *paths,
        write_gif(moving, folder / "rollout.gif", fps=1 / seconds),
        write_png(still, folder / "rollout.png"),
    ]


@torch.no_grad()
def feature_maps(model: LatentWorldModel, video: UInt8[Tensor, "B T C h w"]) -> Float[Tensor, "B S hh ww E"] | None:
    """The encoder's last feature map; None if it does not show one."""
    feature_map = getattr(model.encoder, "feature_map", None)
    if feature_map is None:
        return None
    return feature_map(model.prepare_clips(video.to(next(model.encoder.parameters()).device)))


def draw_plans(
    decoder: Decoder | None,
    real: UInt8[np.ndarray, "E T h w 3"],
    goal: UInt8[np.ndarray, "E h w 3"],
    imagined: Float[np.ndarray, "E H N D"],
    success: Bool[np.ndarray, " E"],
    folder: Path,
    *,
    frames_per_step: int,
    fps: float,
    distances: Sequence[str],
) -> list[Path]:
    """plan_0.gif … of the example tasks that `jepa plan` kept.

    Args:
        decoder: shows what was imagined; None: it is left out.
        distances: from the goal at the end, with their unit.
    """
    dreams: Sequence[Tensor | None] = [None] * len(real)
    if decoder is not None:
        dreams = decoder.decode(torch.from_numpy(imagined)).unbind()
    paths = []
    for i in range(len(real)):
        moving = figures.plan_video(
            torch.from_numpy(real[i]).permute(0, 3, 1, 2),
            torch.from_numpy(goal[i]).permute(2, 0, 1),
            dreams[i],
            frames_per_step=frames_per_step,
            reached=bool(success[i]),
            distance=distances[i],
        )
        paths.append(write_gif(moving, folder / f"plan_{i}.gif", fps=fps))
    return paths
