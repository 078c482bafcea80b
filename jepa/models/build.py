"""From the description of a part to the object: encoders, dynamics, planners."""

from collections.abc import Callable

from jepa.config import UserError
from jepa.encoders.config import ConvConfig, Encoder, FrameConfig, ImpalaConfig, PerFrameConfig, VideoViTConfig
from jepa.encoders.conv import ConvEncoder
from jepa.encoders.frame import FrameEncoder
from jepa.encoders.impala import ImpalaEncoder
from jepa.encoders.per_frame import PerFrameEncoder
from jepa.encoders.video_vit import VideoViT
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

AnyEncoder = ConvEncoder | ImpalaEncoder | VideoViT | FrameEncoder | PerFrameEncoder

# Of the pixels in 0..1; ImageNet's, as V-JEPA and most backbones use.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLANNERS: dict[str, Callable[..., Planner]] = {
    "random": RandomShooting,
    "cem": CEM,
    "icem": ICEM,
    "mppi": MPPI,
    "gradient": Gradient,
    "grasp": GRASP,
}


def build_encoder(config: Encoder, image_size: int, frames: int) -> AnyEncoder:
    """An encoder with random weights, also where training starts from others. Raises UserError if sizes do not fit."""
    if frames % config.tubelet:
        raise UserError(f"data.clip_frames is {frames}, no multiple of encoder.tubelet ({config.tubelet})")
    try:
        match config:
            case ConvConfig():
                return ConvEncoder(image_size, **config.model_dump(exclude={"kind"}))
            case ImpalaConfig():
                return ImpalaEncoder(image_size, **config.model_dump(exclude={"kind"}))
            case VideoViTConfig():
                return VideoViT(image_size, frames=frames, **config.model_dump(exclude={"kind", "size"}))
            case FrameConfig():
                settings = config.model_dump(exclude={"kind", "model", "pretrained", "tubelet"})
                return FrameEncoder(config.model, image_size, **settings)
            case PerFrameConfig(of=of, layer_norm=layer_norm):
                encoder = VideoViT(image_size, frames=frames, **of.model_dump(exclude={"kind", "size"}))
                return PerFrameEncoder(encoder, layer_norm=layer_norm)
    except ValueError as error:
        raise UserError(f"encoder: {error}") from error


def build_dynamics(config: PredictorConfig, encoder: AnyEncoder, block_size: int) -> Predictor:
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
