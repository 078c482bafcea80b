"""From the description of a part to the object: encoders, dynamics."""

from jepa.config import UserError, errors_of
from jepa.encoders import ENCODERS
from jepa.encoders.base import EncoderConfig
from jepa.encoders.module import Encoder
from jepa.events import EventLayout
from jepa.predictors import PREDICTORS
from jepa.predictors.base import Predictor, PredictorConfig, token_grid


def build_encoder(config: EncoderConfig, image_size: int, frames: int, *, load_weights: bool = False) -> Encoder:
    """An encoder for clips of this size.

    Args:
        load_weights: start from the trained weights that the config names, if any, which may download them. Otherwise
            they are random ones: a model's own are read into it, and a baseline has none.

    Raises:
        UserError: sizes do not fit, or the weights cannot be had.
    """
    if frames % config.tubelet:
        raise UserError(f"data.clip_frames is {frames}, no multiple of encoder.tubelet ({config.tubelet})")
    if not load_weights:
        config = config.without_weights()
    try:
        return ENCODERS.make(config, image_size, frames)
    except ValueError as error:
        raise UserError(f"encoder: {error}") from error


def build_dynamics(
    config: PredictorConfig, encoder: Encoder, block_size: int, events: EventLayout | None = None
) -> Predictor:
    """Fresh dynamics over the latents of an encoder, for actions `block_size` wide. Raises UserError if they clash.

    With `events`, their columns come on top of these. Where dynamics standardize actions or states, they do nothing to
    them yet.
    """
    with errors_of("dynamics"):
        width = block_size if events is None else events.width
        dynamics = PREDICTORS.make(config, encoder.width, width, token_grid(encoder))
        if events is not None:
            dynamics.read_events(events)
        return dynamics
