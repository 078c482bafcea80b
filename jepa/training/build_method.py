"""From the description of a run to its method, what is trained; and from a trained method to its model."""

import torch
from torch import nn

from jepa.config import UserError
from jepa.encoders.module import Encoder
from jepa.encoders.video_vit import VideoViT
from jepa.masks import MASKS
from jepa.methods.base import Method
from jepa.methods.config import (
    DinoWMConfig,
    FrozenEncoderConfig,
    LeVJEPAConfig,
    LeWMConfig,
    PLDMConfig,
    VJEPAACConfig,
    VJEPAConfig,
    VPixelConfig,
)
from jepa.methods.dino_wm import DinoWM
from jepa.methods.levjepa import LeVJEPA
from jepa.methods.lewm import LeWM
from jepa.methods.pixel_reconstruction import PixelReconstruction, patch_pixels
from jepa.methods.pldm import PLDM
from jepa.methods.vjepa import VJEPA, Dense
from jepa.methods.vjepa_ac import VJEPAAC
from jepa.models.build import build_dynamics, build_encoder
from jepa.models.config import ModelConfig, PreprocessingConfig, SpecConfig
from jepa.models.frozen_encoder import check_freezable, load_frozen
from jepa.models.model import Model, load
from jepa.objectives.inverse_dynamics import InverseDynamics
from jepa.predictors.config import CausalPredictorConfig, Dynamics
from jepa.predictors.masked import MaskedPredictor
from jepa.predictors.mlp import MLPPredictor
from jepa.training.config import PretrainConfig
from jepa.training.normalization import Normalization, fit_normalization
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing


def build_method(
    config: PretrainConfig, image_size: int, action_size: int, scales: Normalization | None = None
) -> Method:
    """The method of a run with fresh weights, drawn from the run's seed; a frozen encoder has those it was trained to.

    Args:
        image_size: of the clips in pixels.
        action_size: width of one raw action; 0 if the clips have none.
        scales: moments of actions and states, for models that standardize them; None: they do nothing to them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _method(config, _starting_encoder(config, image_size), action_size, scales or Normalization())


def _starting_encoder(config: PretrainConfig, image_size: int) -> Encoder:
    """What training starts from: random weights, or those that the config names."""
    encoder, method = config.encoder, config.method
    assert encoder is not None, "jepa.training.encoder_from.resolved names it"
    if isinstance(method, FrozenEncoderConfig) and method.encoder_from is not None:
        return load_frozen(method.encoder_from, encoder, image_size, config.data.clip_frames)
    return build_encoder(encoder, image_size, config.data.clip_frames, load_weights=True)


def _method(config: PretrainConfig, encoder: Encoder, action_size: int, scales: Normalization) -> Method:
    method = config.method
    if isinstance(method, LeWMConfig | PLDMConfig):
        return _latent_prediction(config, method, encoder, action_size, scales)
    if isinstance(method, FrozenEncoderConfig):
        return _on_frozen(config, method, encoder, action_size, scales)
    if not isinstance(encoder, VideoViT):
        raise UserError(f"method {method.kind} needs an encoder with tokens (encoder: {{kind: video_vit}})")
    try:
        match method:
            case VJEPAConfig():
                return _vjepa(method, encoder)
            case VPixelConfig():
                predictor = MaskedPredictor(
                    encoder.width,
                    mask_kinds=len(method.masks),
                    target_width=patch_pixels(encoder),
                    position_grid=encoder.position_grid,
                    **method.predictor.model_dump(exclude={"kind"}),
                )
                return PixelReconstruction(encoder, predictor, masks=[MASKS.make(mask) for mask in method.masks])
            case LeVJEPAConfig():
                return LeVJEPA(encoder, **method.model_dump(exclude={"kind"}))
    except ValueError as error:
        raise UserError(f"method: {error}") from error


def _latent_prediction(
    config: PretrainConfig,
    method: LeWMConfig | PLDMConfig,
    encoder: Encoder,
    action_size: int,
    scales: Normalization,
) -> LeWM | PLDM:
    """Encoder and dynamics learned together, in latents of one vector a step."""
    if encoder.tokens != 1:
        raise UserError(
            f"method {method.kind} needs an encoder with one vector per step (encoder: {{kind: conv}}, or output: "
            "pooled of kind frame)"
        )
    block = _block_size(config, encoder, action_size)
    predictor = method.predictor
    if isinstance(predictor, CausalPredictorConfig) and (predictor.state_size or predictor.camera_size):
        raise UserError(
            f"method {method.kind} gives its predictor latents and actions alone: omit state_size and camera_size"
        )
    dynamics = build_dynamics(predictor, encoder, block)
    fit_normalization(dynamics, scales)
    learned = LeWM if isinstance(method, LeWMConfig) else PLDM
    static = dynamics.static if learned is LeWM and isinstance(dynamics, MLPPredictor) else 0
    inverse = InverseDynamics(encoder.width - static, block)
    return learned(encoder, dynamics, inverse, **method.model_dump(exclude={"kind", "predictor"}))


def _on_frozen(
    config: PretrainConfig, method: FrozenEncoderConfig, encoder: Encoder, action_size: int, scales: Normalization
) -> VJEPAAC | DinoWM:
    """A causal predictor over the latents of an encoder that is frozen."""
    check_freezable(encoder, encoder.image_size, encoder.tubelet)
    block, predictor = _block_size(config, encoder, action_size), dynamics_of(config)
    assert isinstance(predictor, CausalPredictorConfig)
    moved = {"add_action": block, "apply_delta_pose": 7}.get(predictor.next_state)
    if predictor.state_size and moved not in (None, predictor.state_size):
        raise UserError(
            f"method.predictor.next_state: {predictor.next_state} moves states {moved} wide, found "
            f"{predictor.state_size} in method.states; let them be predicted (next_state: predicted)"
        )
    steps, context = config.data.clip_frames // encoder.tubelet, method.rollout_context
    least = max(2, method.rollout_steps and method.rollout_steps + (1 if context == "random" else context))
    if steps < least:
        raise UserError(
            f"data.clip_frames is {config.data.clip_frames}, {steps} latent step(s); expected "
            f"{least * encoder.tubelet} or more: a clip holds what a rollout starts from (method.rollout_context) and "
            "what it predicts (method.rollout_steps)"
        )
    dynamics = build_dynamics(predictor, encoder, block)
    fit_normalization(dynamics, scales)
    settings = method.model_dump(exclude={"kind", "predictor", "encoder_from", "states"})
    try:
        return (VJEPAAC if isinstance(method, VJEPAACConfig) else DinoWM)(encoder, dynamics, **settings)  # pyright: ignore[reportArgumentType] - built as causal
    except ValueError as error:
        raise UserError(f"method: {error}") from error


def _block_size(config: PretrainConfig, encoder: Encoder, action_size: int) -> int:
    """Width of the actions of one latent step."""
    if not action_size:
        raise UserError(
            f"{config.data.sources[0].shards} has no actions, and method {config.method.kind} learns from them; "
            "use vjepa or levjepa"
        )
    return action_size * encoder.tubelet


def dynamics_of(config: PretrainConfig) -> Dynamics | None:
    """What builds the dynamics that the run trains; None if there are none.

    Raises:
        UserError: the predictor shall take other states than the method names.
    """
    method = config.method
    if isinstance(method, LeWMConfig | PLDMConfig):
        return method.predictor
    if not isinstance(method, VJEPAACConfig | DinoWMConfig):
        return None
    size = method.predictor.state_size
    if size not in (0, len(method.states)):
        raise UserError(
            f"method.predictor.state_size is {size}, and method.states names {len(method.states)}: name {size}, or "
            "leave state_size out"
        )
    described = method.predictor.model_dump() | {"state_size": len(method.states)}
    return CausalPredictorConfig.model_validate(described)


def history_of(config: PretrainConfig) -> int:
    """Latents in a row that the dynamics read at most in training: as many as were true, and not imagined."""
    method, predictor = config.method, dynamics_of(config)
    forced = isinstance(method, FrozenEncoderConfig) or (isinstance(method, LeWMConfig) and method.teacher_forced)
    if not forced or not isinstance(predictor, CausalPredictorConfig):
        return 1
    assert config.encoder is not None
    inputs = max(1, config.data.clip_frames // config.encoder.tubelet - 1)
    return min(inputs, predictor.window or inputs)


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
        masks=[MASKS.make(mask) for mask in method.masks],
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
    assert config.encoder is not None
    described = ModelConfig(
        method=config.method.kind,
        frames=config.data.clip_frames,
        encoder=config.encoder,
        dynamics=dynamics_of(config),
        spec=SpecConfig(**vars(spec)),
        preprocessing=PreprocessingConfig(**vars(preprocessing)),
    )
    return Model(world, described, method.predictor if isinstance(method, VJEPA) else None)
