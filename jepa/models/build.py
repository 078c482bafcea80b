"""From the description of a part to the object: encoders, dynamics."""

from jepa.config import UserError
from jepa.encoders.config import ConvConfig, Encoder, FrameConfig, ImpalaConfig, PerFrameConfig, VideoViTConfig
from jepa.encoders.conv import ConvEncoder
from jepa.encoders.frame import FrameEncoder
from jepa.encoders.impala import ImpalaEncoder
from jepa.encoders.per_frame import PerFrameEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.predictors.causal import CausalPredictor, add_action
from jepa.predictors.config import CausalPredictorConfig, Dynamics, GRUConfig, MLPConfig
from jepa.predictors.gripper import apply_delta_pose
from jepa.predictors.gru import GRUPredictor
from jepa.predictors.mlp import MLPPredictor

AnyEncoder = ConvEncoder | ImpalaEncoder | VideoViT | FrameEncoder | PerFrameEncoder

# Of the pixels in 0..1; ImageNet's, as V-JEPA and most backbones use.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NEXT_STATES = {"add_action": add_action, "apply_delta_pose": apply_delta_pose, "predicted": None}


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


def build_dynamics(
    config: Dynamics, encoder: AnyEncoder, block_size: int
) -> MLPPredictor | GRUPredictor | CausalPredictor:
    """Fresh dynamics over the latents of an encoder, for actions `block_size` wide. Raises UserError if they clash.

    Where they standardize actions or states, they do nothing to them yet.
    """
    match config:
        case MLPConfig():
            try:
                return MLPPredictor(encoder.width, block_size, **config.model_dump(exclude={"kind"}))
            except ValueError as error:
                raise UserError(f"dynamics: {error}") from error
        case GRUConfig():
            return GRUPredictor(encoder.width, block_size, **config.model_dump(exclude={"kind"}))
        case CausalPredictorConfig():
            try:
                return CausalPredictor(
                    encoder.width,
                    block_size,
                    config.state_size,
                    grid=_token_grid(encoder),
                    next_state=NEXT_STATES[config.next_state],
                    **config.model_dump(exclude={"kind", "state_size", "next_state"}),
                )
            except ValueError as error:
                raise UserError(f"dynamics: {error}") from error


def _token_grid(encoder: AnyEncoder) -> tuple[int, int]:
    """Rows and columns of the tokens of a square picture; one row where they have no place in it."""
    side = round(encoder.tokens**0.5)
    return (side, side) if side * side == encoder.tokens else (1, encoder.tokens)
