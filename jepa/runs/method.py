"""From the description of a run to its method, what is trained; and from a trained method to its model."""

import torch
from torch import nn

from jepa.config import UserError
from jepa.encoders.frame import FrameEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.methods.base import Method
from jepa.methods.levjepa import LeVJEPA
from jepa.methods.lewm import LeWM
from jepa.methods.pixel_reconstruction import PixelReconstruction, patch_pixels
from jepa.methods.pldm import PLDM
from jepa.methods.vjepa import VJEPA, Dense
from jepa.objectives.inverse_dynamics import InverseDynamics
from jepa.predictors.masked import MaskedPredictor
from jepa.runs.build import AnyEncoder, build_dynamics, build_encoder, build_masks
from jepa.runs.model import Model, load
from jepa.runs.schema import (
    CausalPredictorConfig,
    FrameConfig,
    LeVJEPAConfig,
    LeWMConfig,
    ModelConfig,
    PLDMConfig,
    PreprocessingConfig,
    PretrainConfig,
    SpecConfig,
    VJEPAConfig,
    VPixelConfig,
)
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing


def build_method(config: PretrainConfig, image_size: int, action_size: int) -> Method:
    """The method of a run with fresh weights, drawn from the run's seed.

    Args:
        image_size: of the clips in pixels.
        action_size: width of one raw action; 0 if the clips have none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _method(config, _starting_encoder(config, image_size), action_size)


def _starting_encoder(config: PretrainConfig, image_size: int) -> AnyEncoder:
    """What training starts from: random weights, or those that the config names."""
    encoder = config.encoder
    if not isinstance(encoder, FrameConfig) or not encoder.pretrained:
        return build_encoder(encoder, image_size, config.data.clip_frames)
    try:
        return FrameEncoder(encoder.model, image_size, pretrained=True, output=encoder.output)
    except ValueError as error:
        raise UserError(f"encoder: {error}") from error


def _method(config: PretrainConfig, encoder: AnyEncoder, action_size: int) -> Method:
    width, method = encoder.width, config.method
    if isinstance(method, LeWMConfig | PLDMConfig):
        if encoder.tokens != 1:
            raise UserError(
                f"method {method.kind} needs an encoder with one vector per step (encoder: {{kind: conv}}, or output: "
                "pooled of kind frame)"
            )
        if not action_size:
            raise UserError(
                f"{config.data.sources[0].shards} has no actions, and method {method.kind} learns from them; "
                "use vjepa or levjepa"
            )
        predictor = method.predictor
        if isinstance(predictor, CausalPredictorConfig) and (predictor.state_size or predictor.camera_size):
            raise UserError(
                f"method {method.kind} gives its predictor latents and actions alone: omit state_size and camera_size"
            )
        block = action_size * config.encoder.tubelet
        learned = LeWM if isinstance(method, LeWMConfig) else PLDM
        return learned(
            encoder,
            build_dynamics(method.predictor, encoder, block),
            InverseDynamics(width, block),
            **method.model_dump(exclude={"kind", "predictor"}),
        )
    if not isinstance(encoder, VideoViT):
        raise UserError(f"method {method.kind} needs an encoder with tokens (encoder: {{kind: video_vit}})")
    try:
        match method:
            case VJEPAConfig():
                return _vjepa(method, encoder)
            case VPixelConfig():
                predictor = MaskedPredictor(
                    width,
                    mask_kinds=len(method.masks),
                    target_width=patch_pixels(encoder),
                    position_grid=encoder.position_grid,
                    **method.predictor.model_dump(exclude={"kind"}),
                )
                return PixelReconstruction(encoder, predictor, masks=build_masks(method.masks))
            case LeVJEPAConfig():
                return LeVJEPA(encoder, **method.model_dump(exclude={"kind"}))
    except ValueError as error:
        raise UserError(f"method: {error}") from error


def _vjepa(method: VJEPAConfig, encoder: VideoViT) -> VJEPA:
    """V-JEPA with a predictor that fits the levels, the pictures and the dense loss asked for."""
    frozen = None
    if method.teacher_from is not None:
        frozen = load(method.teacher_from).encoder
        if not isinstance(frozen, VideoViT):
            raise UserError(f"method.teacher_from: {method.teacher_from} holds no encoder of kind video_vit")
    teacher = frozen or encoder
    # A student of other levels than its teacher predicts the last one.
    levels = teacher.level_count if teacher.level_count == encoder.level_count else 1
    predictor = MaskedPredictor(
        encoder.width,
        mask_kinds=len(method.masks),
        levels_in=encoder.level_count,
        levels_out=levels,
        target_width=teacher.width,
        context_head=method.dense is not None,
        images=encoder.images,
        position_grid=encoder.position_grid,
        **method.predictor.model_dump(exclude={"kind"}),
    )
    return VJEPA(
        encoder,
        predictor,
        masks=build_masks(method.masks),
        ema=method.ema,
        teacher=method.teacher,
        frozen=frozen,
        dense=None if method.dense is None else Dense(**method.dense.model_dump()),
    )


def trained(config: PretrainConfig, method: Method, spec: LatentSpec, preprocessing: Preprocessing) -> Model:
    """What is kept of a method after training."""
    dynamics = method.dynamics
    assert dynamics is None or isinstance(dynamics, nn.Module)
    world = LatentWorldModel(method.evaluation_encoder(), dynamics, spec, preprocessing).eval()
    described = ModelConfig(
        method=config.method.kind,
        frames=config.data.clip_frames,
        encoder=config.encoder,
        dynamics=config.method.predictor if isinstance(config.method, LeWMConfig | PLDMConfig) else None,
        spec=SpecConfig(**vars(spec)),
        preprocessing=PreprocessingConfig(**vars(preprocessing)),
    )
    return Model(world, described, method.predictor if isinstance(method, VJEPA) else None)
