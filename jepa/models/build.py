"""From the description of a part to the object: encoders, dynamics, planners."""

from collections.abc import Callable

from jepa.config import UserError
from jepa.encoders import ENCODERS
from jepa.encoders.base import EncoderConfig
from jepa.encoders.module import Encoder
from jepa.planners.base import Planner
from jepa.planners.cem import CEM
from jepa.planners.config import HybridConfig, PlannerConfig
from jepa.planners.gradient import Gradient
from jepa.planners.grasp import GRASP
from jepa.planners.hybrid import Hybrid
from jepa.planners.icem import ICEM
from jepa.planners.mppi import MPPI
from jepa.planners.random_shooting import RandomShooting
from jepa.predictors import PREDICTORS
from jepa.predictors.base import Predictor, PredictorConfig, token_grid

PLANNERS: dict[str, Callable[..., Planner]] = {
    "random": RandomShooting,
    "cem": CEM,
    "icem": ICEM,
    "mppi": MPPI,
    "gradient": Gradient,
    "grasp": GRASP,
}


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
    try:
        return ENCODERS.make(config if load_weights else config.without_weights(), image_size, frames)
    except ValueError as error:
        raise UserError(f"encoder: {error}") from error


def build_dynamics(config: PredictorConfig, encoder: Encoder, block_size: int) -> Predictor:
    """Fresh dynamics over the latents of an encoder, for actions `block_size` wide. Raises UserError if they clash.

    Where they standardize actions or states, they do nothing to them yet.
    """
    try:
        return PREDICTORS.make(config, encoder.width, block_size, token_grid(encoder))
    except ValueError as error:
        raise UserError(f"dynamics: {error}") from error


def build_planner(config: PlannerConfig) -> Planner:
    """Raises UserError if its settings do not fit together."""
    try:
        if isinstance(config, HybridConfig):
            return Hybrid(build_planner(config.sampler), Gradient(**config.refine.model_dump(exclude={"kind"})))
        return PLANNERS[config.kind](**config.model_dump(exclude={"kind"}))
    except ValueError as error:
        raise UserError(f"planner: {error}") from error
