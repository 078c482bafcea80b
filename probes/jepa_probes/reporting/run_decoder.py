"""The decoder of a run: the one that `jepa decoder` fitted, or a small one, fitted when somebody first wants to see
latents.

RUN/model/pixels/, RUN/model/diffusion/, …   or the same in the folder of `--out`
RUN/decoder.json                             says which one is used
"""

import logging
from pathlib import Path

from jepa.decoders import DECODERS
from jepa.decoders.base import Decoder
from jepa.decoders.fit import fit_decoder
from jepa.decoders.pixels import PixelDecoder, token_side
from jepa.models.parts import load_decoder, save_decoder
from jepa.training.config import PretrainConfig
from jepa.world_model import LatentWorldModel
from jepa_probes.decoding.clips import read_clips
from jepa_probes.decoding.result import DecoderResult
from jepa_probes.output import folders

logger = logging.getLogger(__name__)

FITTING_CLIPS = 320  # of training
STEPS = 300  # at 64 pixels; of smaller images as many more as take about as long, up to four times


def saved_decoder(run: Path, model: LatentWorldModel, *, out: Path | None = None) -> Decoder | None:
    """The decoder that was saved with a run, in `out` or the run: the one of decoder.json, else the first kind there.

    None if there is none. Raises UserError if it is damaged.
    """
    result = DecoderResult.find(folders(run, out))
    kinds = [result.kind] if result is not None else []
    for kind in dict.fromkeys([*kinds, *DECODERS.places]):
        for folder in folders(run / "model", None if out == run else out):
            if (folder / kind).is_dir():
                return load_decoder(folder, kind, model.dynamics)
    return None


def pixel_decoder(
    run: Path, model: LatentWorldModel, config: PretrainConfig, *, out: Path | None = None, steps: int | None = None
) -> Decoder | None:
    """The run's decoder: the saved one, or a deterministic one that is fitted and saved now.

    None if its latents cannot be decoded; the log says why.

    Args:
        out: where a decoder is saved, and looked for first; None: the run's model folder.
        steps: fit it again, for this many steps; None: only if there is none, for `STEPS`.
    """
    if steps is None and (decoder := saved_decoder(run, model, out=out)) is not None:
        return decoder
    size = model.preprocessing.image_size
    try:
        token_side(model.spec.tokens, size)
    except ValueError as error:
        logger.info(f"nothing that is imagined can be shown: {error}")
        return None
    steps = steps or round(STEPS * min(4.0, max(1.0, (64 / size) ** 2)))
    clips = read_clips(model, config.data, "train", seed=config.seed, clips=FITTING_CLIPS)
    decoder = fit_decoder(PixelDecoder.Config(), clips.latents, clips.frames, steps=steps, seed=config.seed)
    save_decoder(folders(run / "model", None if out == run else out)[0], decoder)
    return decoder
