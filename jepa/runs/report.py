"""`jepa report`: figures and one HTML page of what a run folder holds.

RUN/model/pixels/   a pixel decoder of the frozen latents, fitted here
RUN/figures/        data.png pca.gif rollout.gif plan_0.gif …
RUN/results.json    every figure of the run for programs
RUN/report.html     for people, one file
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa.config import load as load_config
from jepa.decoders.pixels import PixelDecoder, fit_pixel_decoder
from jepa.export.decoder import save_pixel_decoder
from jepa.runs.model import load
from jepa.runs.schema import PretrainConfig
from jepa.world_model import LatentWorldModel
from jepa_data.shards.index import ShardSet
from jepa_data.shards.stream import make_loader
from jepa_probes.gallery import draw_model, draw_plans
from jepa_probes.report import write_report
from jepa_probes.results import write_results

FITTING_CLIPS = 320  # of training, for the pixel decoder
SHOWN_STEPS = 15  # latent steps of the clips in the figures


def report(run: Path, *, decoder_steps: int = 250, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Draw the figures, write the page, and return the results.

    Args:
        decoder_steps: optimiser steps of the pixel decoder.

    Raises:
        UserError: the run holds no model.
    """
    began = time.perf_counter()
    model, config = load(run), load_config(run / "config.yaml", PretrainConfig)
    decoder = _decoder(model, config, run, decoder_steps)
    tubelet = model.spec.frames_per_step
    frames = min(SHOWN_STEPS, _longest(config) // tubelet) * tubelet
    shown = config.data.model_copy(
        update={"clip_frames": frames, "batch_size": 8, "clips_per_video": 1, "short": "skip"}
    )
    clips = next(iter(make_loader(shown, "test", seed=0, shuffle=False)))
    draw_model(model, decoder, clips, run / "figures")
    _plans(model, decoder, run)
    seconds = time.perf_counter() - began
    timings = run / "timings.json"
    known = json.loads(timings.read_text()) if timings.is_file() else {}
    timings.write_text(json.dumps(known | {"report": round(seconds, 2)}, indent=2) + "\n")
    results = json.loads(write_results(run).read_text())
    say(f"{write_report(run)}")
    return results


def _longest(config: PretrainConfig) -> int:
    """Frames of the longest clip that a held-out video allows, at the run's rate."""
    rows, data = ShardSet.open(config.data.folder).split("test").rows, config.data
    if data.fps is None:
        return 1 + int((rows["frames"].max() - 1) // data.stride)
    return 1 + int(rows["seconds"].max() * data.fps + 1e-3)


def _decoder(model: LatentWorldModel, config: PretrainConfig, run: Path, steps: int) -> PixelDecoder:
    """A pixel decoder fitted on the frozen latents of training clips."""
    batches = -(-FITTING_CLIPS // config.data.batch_size)
    tubelet = model.spec.frames_per_step
    latents, frames = [], []
    for clips in make_loader(config.data, "train", seed=config.seed, total_batches=batches):
        latents.append(model.encode(clips.video).flatten(0, 1))
        frames.append(clips.video[:, tubelet - 1 :: tubelet].flatten(0, 1))
    decoder = fit_pixel_decoder(torch.cat(latents), torch.cat(frames), steps=steps, seed=config.seed)
    save_pixel_decoder(run / "model", decoder)
    return decoder


def _plans(model: LatentWorldModel, decoder: PixelDecoder, run: Path) -> None:
    path = run / "plan_examples.npz"
    if not path.is_file():
        return
    with np.load(path, allow_pickle=False) as kept:
        real, goal, imagined, success = (kept[name] for name in ("real", "goal", "imagined", "success"))
    draw_plans(
        decoder,
        real,
        goal,
        imagined,
        success,
        run / "figures",
        frames_per_step=model.spec.frames_per_step,
        fps=model.preprocessing.fps,
    )
