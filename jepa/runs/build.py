"""From the description of a run to its objects, and from a run folder to a model."""

from pathlib import Path

import torch
from torch import nn

from jepa.config import UserError, from_dict
from jepa.encoders.conv import ConvEncoder
from jepa.encoders.frame import FrameEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.export import checkpoint, hub
from jepa.masks.causal import Causal
from jepa.masks.multiblock import MultiBlock
from jepa.masks.random_drop import RandomDrop
from jepa.masks.tube import Tube
from jepa.methods.base import Method
from jepa.methods.levjepa import LeVJEPA
from jepa.methods.lewm import LeWM
from jepa.methods.pixel_reconstruction import PixelReconstruction, patch_pixels
from jepa.methods.vjepa import VJEPA, Dense, Mask
from jepa.objectives.inverse_dynamics import InverseDynamics
from jepa.predictors.markov import MarkovPredictor
from jepa.predictors.masked import MaskedPredictor
from jepa.runs.schema import (
    ConvConfig,
    Encoder,
    FrameConfig,
    LeVJEPAConfig,
    LeWMConfig,
    MarkovConfig,
    MaskConfig,
    PretrainConfig,
    VideoViTConfig,
    VJEPAConfig,
    VPixelConfig,
)
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing

# Of the pixels in 0..1; ImageNet's, as V-JEPA and most backbones use.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_encoder(config: Encoder, image_size: int, frames: int) -> ConvEncoder | VideoViT | FrameEncoder:
    """An encoder with random weights, also where training starts from others. Raises UserError if sizes do not fit."""
    if frames % config.tubelet:
        raise UserError(f"data.clip_frames is {frames}, no multiple of encoder.tubelet ({config.tubelet})")
    try:
        match config:
            case ConvConfig():
                return ConvEncoder(image_size, **config.model_dump(exclude={"kind"}))
            case VideoViTConfig():
                return VideoViT(image_size, frames=frames, **config.model_dump(exclude={"kind", "size"}))
            case FrameConfig():
                return FrameEncoder(config.model, image_size, output=config.output)
    except ValueError as error:
        raise UserError(f"encoder: {error}") from error


def build_method(config: PretrainConfig, image_size: int, action_size: int) -> Method:
    """The method of a run with fresh weights, drawn from the run's seed.

    Args:
        image_size: of the clips in pixels.
        action_size: width of one raw action; 0 if the clips have none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _method(config, _starting_encoder(config, image_size), action_size)


def _starting_encoder(config: PretrainConfig, image_size: int) -> ConvEncoder | VideoViT | FrameEncoder:
    """What training starts from: random weights, or those that the config names."""
    encoder = config.encoder
    if not isinstance(encoder, FrameConfig) or not encoder.pretrained:
        return build_encoder(encoder, image_size, config.data.clip_frames)
    try:
        return FrameEncoder(encoder.model, image_size, pretrained=True, output=encoder.output)
    except ValueError as error:
        raise UserError(f"encoder: {error}") from error


def _method(config: PretrainConfig, encoder: ConvEncoder | VideoViT | FrameEncoder, action_size: int) -> Method:
    width, method = encoder.width, config.method
    if isinstance(method, LeWMConfig):
        if encoder.tokens != 1:
            raise UserError(
                "method lewm needs an encoder with one vector per step (encoder: {kind: conv}, or output: pooled of "
                "kind frame)"
            )
        if not action_size:
            raise UserError(
                f"{config.data.sources[0].shards} has no actions, and method lewm learns from them; "
                "use vjepa or levjepa"
            )
        block = action_size * config.encoder.tubelet
        return LeWM(
            encoder,
            build_dynamics(method.predictor, width, block),
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


def build_masks(masks: tuple[MaskConfig, ...]) -> list[Mask]:
    """What draws them."""
    return [_MASKS[mask.kind](**mask.model_dump(exclude={"kind"})) for mask in masks]


def build_dynamics(config: MarkovConfig, width: int, block_size: int) -> MarkovPredictor:
    """Fresh dynamics over latents of `width`, for actions `block_size` wide."""
    return MarkovPredictor(width, block_size, hidden=config.hidden)


def world_model(
    config: PretrainConfig, method: Method, spec: LatentSpec, preprocessing: Preprocessing
) -> LatentWorldModel:
    """What is kept of a method after training."""
    dynamics = method.dynamics
    assert dynamics is None or isinstance(dynamics, nn.Module)
    return LatentWorldModel(method.evaluation_encoder(), dynamics, spec, preprocessing).eval()


def save(model: LatentWorldModel, config: PretrainConfig, folder: Path) -> None:
    """Write a model so that `load` finds everything it needs beside the weights."""
    spec, preprocessing = vars(model.spec), vars(model.preprocessing)
    predictor = config.method.predictor if isinstance(config.method, LeWMConfig) else None
    description = {
        "method": config.method.kind,
        "frames": config.data.clip_frames,
        "encoder": config.encoder.model_dump(mode="json"),
        "dynamics": predictor.model_dump(mode="json") if predictor else None,
        "spec": spec,
        "preprocessing": preprocessing,
    }
    checkpoint.save(folder, model, description)


def load(path: str | Path, revision: str | None = None) -> LatentWorldModel:
    """The model of a run folder, of a model folder, or of the Hugging Face hub, ready to use.

    Args:
        path: a folder that holds `model.safetensors` and `model.json` (or a run with one), a folder in the layout of
            transformers' `VJEPA2Model`, or a hub id: "facebook/vjepa2-vitl-fpc64-256", "hf://org/name".
        revision: of a model of the hub: a branch, a tag or the hash of a commit.

    Raises:
        UserError: there is no model, it is damaged, or its weights belong to another model.
    """
    folder = Path(path)
    if not folder.is_dir():
        if (name := hub.hub_id(str(path))) is None:
            raise UserError(f"{folder}: no such folder; give a run folder (runs/demo) or one that holds model.json")
        folder = hub.download(name, revision)
    if hub.is_hub_layout(folder):
        return _from_hub(folder)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    described = checkpoint.read_description(folder)
    encoder_config = from_dict(described["encoder"], _CONFIGS[described["encoder"]["kind"]])
    spec = LatentSpec(**described["spec"])
    p = described["preprocessing"]
    preprocessing = Preprocessing(p["image_size"], p["fps"], tuple(p["mean"]), tuple(p["std"]))
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(encoder_config, preprocessing.image_size, described["frames"])
        dynamics = None
        if described["dynamics"]:
            dynamics = build_dynamics(from_dict(described["dynamics"], MarkovConfig), spec.width, spec.block_size)
    model = LatentWorldModel(encoder, dynamics, spec, preprocessing)
    checkpoint.load_into(model, folder)
    return model.eval().requires_grad_(False)


def _from_hub(folder: Path) -> LatentWorldModel:
    found = hub.read(folder)
    encoder = found.encoder
    spec = LatentSpec(encoder.tokens, encoder.width, encoder.tubelet / found.fps, encoder.tubelet)
    preprocessing = Preprocessing(encoder.image_size, found.fps, found.mean or MEAN, found.std or STD)
    return LatentWorldModel(encoder, None, spec, preprocessing).eval().requires_grad_(False)


_MASKS = {"multiblock": MultiBlock, "tube": Tube, "causal": Causal, "random_drop": RandomDrop}
_CONFIGS = {"conv": ConvConfig, "video_vit": VideoViTConfig, "frame": FrameConfig}
