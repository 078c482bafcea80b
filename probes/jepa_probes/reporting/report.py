"""`jepa report`: figures and one HTML page of what a run folder holds.

RUN/figures/        data.png pca.gif rollout.gif …, beside the plan_0.gif … of `jepa plan`
RUN/results.json    every figure of the run for programs
RUN/report.html     for people, one file

With `--out FOLDER` they go there; what other verbs wrote to that folder is shown rather than what is in RUN.
"""

import json
import time
from pathlib import Path

from jepa.config.writing import write_text
from jepa.models.model import load
from jepa.training.config import PretrainConfig
from jepa.training.run_state.run_folder import run_config
from jepa_data.shards.index import ShardSet
from jepa_data.stream.loader import make_loader
from jepa_probes.output import folders, output_folder
from jepa_probes.reporting.gallery import draw_model
from jepa_probes.reporting.page import write_report
from jepa_probes.reporting.results import RunResults, collect_results, read_json
from jepa_probes.reporting.run_decoder import pixel_decoder

SHOWN_STEPS = 15  # latent steps of the clips in the figures


def report(run: Path, *, decoder_steps: int | None = None, out: Path | None = None) -> RunResults:
    """Draw the figures, write the page, and return the results.

    Args:
        decoder_steps: fit the pixel decoder again, for this many steps; None: only if the run has none yet.
        out: folder for what is written; None: the run's.

    Raises:
        UserError: the run holds no model, or nothing can be written.
    """
    began = time.perf_counter()
    model, config = load(run), run_config(run)
    out = output_folder(run, out)
    decoder = pixel_decoder(run, model, config, out=out, steps=decoder_steps)
    tubelet = model.spec.frames_per_step
    frames = min(SHOWN_STEPS, _longest(config) // tubelet) * tubelet
    shown = config.data.model_copy(
        update={"clip_frames": frames, "batch_size": 8, "clips_per_video": 1, "short": "skip"}
    )
    loader = make_loader(shown, "test", seed=0, shuffle=False)
    names = loader.shards.manifest.state_names
    columns = [names.index(name) for name in model.spec.states if name in names]
    draw_model(model, decoder, next(iter(loader)), out / "figures", state_columns=columns)
    seconds = time.perf_counter() - began
    known = read_json(folders(run, out), "timings.json")
    write_text(out / "timings.json", json.dumps(known | {"report": round(seconds, 2)}, indent=2) + "\n")
    results = collect_results(run, out)
    results.write(out)
    write_report(run, out)
    return results


def _longest(config: PretrainConfig) -> int:
    """Frames of the longest clip that a held-out video allows, at the run's rate."""
    data = config.data
    rows = ShardSet.open(data.folder).split("test").rows
    if data.fps is None:
        return 1 + int((rows["frames"].max() - 1) // data.stride)
    return 1 + int(rows["seconds"].max() * data.fps + 1e-3)
