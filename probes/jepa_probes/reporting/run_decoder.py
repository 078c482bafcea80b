"""The pixel decoder of a run, fitted on its frozen latents when somebody first wants to see them.

RUN/model/pixels/, or pixels/ in the folder of `--out`
"""

import logging
from pathlib import Path

import torch

from jepa.decoders.pixels import PixelDecoder, fit_pixel_decoder
from jepa.models.parts import PIXELS, load_pixel_decoder, save_pixel_decoder
from jepa.training.config import PretrainConfig
from jepa.world_model import LatentWorldModel
from jepa_data.stream.loader import make_loader
from jepa_probes.output import folders

logger = logging.getLogger(__name__)

FITTING_CLIPS = 320  # of training
STEPS = 250  # at 64 pixels; of smaller images as many more as take about as long, up to four times


def pixel_decoder(
    run: Path, model: LatentWorldModel, config: PretrainConfig, *, out: Path | None = None, steps: int | None = None
) -> PixelDecoder | None:
    """The run's decoder: the saved one, or one that is fitted and saved now.

    None if its latents cannot be decoded; the log says why.

    Args:
        out: where a decoder is saved, and looked for first; None: the run's model folder.
        steps: fit it again, for this many steps; None: only if there is none, for `STEPS`.
    """
    places = folders(run / "model", None if out == run else out)
    for folder in places:
        if steps is None and (folder / PIXELS).is_dir():
            return load_pixel_decoder(folder)
    try:
        PixelDecoder(model.spec.tokens, model.spec.width, model.preprocessing.image_size)
    except ValueError as error:
        logger.info(f"nothing that is imagined can be shown: {error}")
        return None
    steps = steps or round(STEPS * min(4.0, max(1.0, (64 / model.preprocessing.image_size) ** 2)))
    batches = -(-FITTING_CLIPS // config.data.batch_size)
    tubelet = model.spec.frames_per_step
    latents, frames = [], []
    for clips in make_loader(config.data, "train", seed=config.seed, total_batches=batches):
        latents.append(model.encode_clips(clips.video).flatten(0, 1))
        frames.append(clips.video[:, tubelet - 1 :: tubelet].flatten(0, 1))
    decoder = fit_pixel_decoder(torch.cat(latents), torch.cat(frames), steps=steps, seed=config.seed)
    save_pixel_decoder(places[0], decoder)
    return decoder
