"""V-JEPA 2 in transformers (`VJEPA2Model`): its tensors to our modules, and back, bit for bit.

    ours                          transformers
    patch_embed.proj              encoder.embeddings.patch_embeddings.proj
    blocks.0.attn.qkv             encoder.layer.0.attention.{query, key, value}
    norm                          encoder.layernorm
    predictor_embed               predictor.embeddings.predictor_embeddings
    mask_tokens [kinds, width]    predictor.embeddings.mask_tokens [kinds, 1, 1, width]
    predictor_blocks.0 …          predictor.layer.0 …

Needs the package transformers: pip install 'openjepa[huggingface]'. Its positions are right only for clips of the
size in its config (`crop_size`); ours for any.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jepa.config import UserError, first_line, from_dict
from jepa.encoders.video_vit import VideoViT
from jepa.models.checkpoint import check_tensors, fill
from jepa.predictors.masked import MaskedPredictor
from jepa.transformer import NORM_EPS
from jepa_data.printable import first_few

if TYPE_CHECKING:
    from transformers import VJEPA2Model

ENCODER = (  # ours, theirs
    ("patch_embed.", "encoder.embeddings.patch_embeddings."),
    ("blocks.", "encoder.layer."),
    ("norm.", "encoder.layernorm."),
)
PREDICTOR = (
    ("predictor_embed.", "predictor.embeddings.predictor_embeddings."),
    ("mask_tokens", "predictor.embeddings.mask_tokens"),
    ("predictor_blocks.", "predictor.layer."),
    ("predictor_norm.", "predictor.layernorm."),
    ("predictor_proj.", "predictor.proj."),
)
PARTS = ("query", "key", "value")
NEEDED = {
    *("patch_size", "crop_size", "frames_per_clip", "tubelet_size", "in_chans", "hidden_act", "qkv_bias"),
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "layer_norm_eps", "pred_hidden_size"),
    *("pred_num_hidden_layers", "pred_num_attention_heads", "pred_mlp_ratio", "pred_num_mask_tokens"),
}


def to_transformers(encoder: VideoViT, predictor: MaskedPredictor | None = None) -> "VJEPA2Model":
    """The same weights as transformers' model, in evaluation mode.

    Args:
        predictor: None: the model's predictor has no layers and means nothing; call it with `skip_predictor=True`.

    Raises:
        UserError: `VJEPA2Model` has no such encoder, or transformers is not installed.
    """
    settings = describe(encoder, predictor)
    config, model_class = their_classes("VJEPA2Config", "VJEPA2Model")
    model = model_class(config(**settings)).eval()
    model.load_state_dict(their_tensors(encoder, predictor, model.state_dict()))
    return model


def from_transformers(model: "VJEPA2Model") -> tuple[VideoViT, MaskedPredictor | None]:
    """Our encoder and predictor (None if it has no layers) with the model's weights, in evaluation mode.

    Raises:
        UserError: the model is no `VJEPA2Model`, or has layers that it does not publish with.
    """
    (model_class,) = their_classes("VJEPA2Model")
    if not isinstance(model, model_class):
        raise UserError(f"expected a VJEPA2Model of transformers, found {type(model).__name__}")
    return from_config(model.config.to_dict(), model.state_dict(), "the model")


def from_config(
    config: Mapping[str, Any], state: Mapping[str, Tensor], where: str
) -> tuple[VideoViT, MaskedPredictor | None]:
    """The same from the contents of a `config.json` and the tensors; needs no transformers.

    The predictor is None if the config gives it no layers, as `to_transformers` writes it for an encoder alone.

    Raises:
        UserError: a setting is missing or unknown to us; a tensor is missing, surplus or of another shape.
    """
    if strange := [name for name in state if not name.startswith(("encoder.", "predictor."))]:
        raise UserError(f"{where} belongs to another model: surplus {first_few(sorted(strange), 5)}")
    missing = sorted(NEEDED - config.keys())
    if missing:
        raise UserError(f"{where}: its config lacks {', '.join(missing)}; expected that of a VJEPA2Model")
    if config["hidden_act"] != "gelu" or not config["qkv_bias"] or abs(config["layer_norm_eps"] - NORM_EPS) > 1e-12:
        raise UserError(
            f"{where}: expected gelu, biases of queries and keys, and a norm eps of {NORM_EPS}; found "
            f"{config['hidden_act']}, qkv_bias={config['qkv_bias']}, {config['layer_norm_eps']}"
        )
    patch = config["patch_size"] if isinstance(config["patch_size"], int) else config["patch_size"][0]
    try:
        with torch.device("meta"):
            settings = {
                "patch": patch,
                "tubelet": config["tubelet_size"],
                "width": config["hidden_size"],
                "depth": config["num_hidden_layers"],
                "heads": config["num_attention_heads"],
                "mlp_ratio": config["mlp_ratio"],
                "positions": "rotary_tiled",
            }
            vit_config = from_dict(settings, VideoViT.Config, source="encoder")
            encoder = VideoViT(vit_config, config["crop_size"], config["frames_per_clip"], channels=config["in_chans"])
            predictor = _predictor(config)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: its config describes no V-JEPA 2 ({first_line(error)})") from None
    for module, names, stem in ((encoder, ENCODER, "encoder."), (predictor, PREDICTOR, "predictor.")):
        if module is not None:
            tensors = _ours({name: x for name, x in state.items() if name.startswith(stem)}, names, where)
            fill(module, tensors, where)
    return encoder, predictor


def _predictor(config: Mapping[str, Any]) -> MaskedPredictor | None:
    if not config["pred_num_hidden_layers"]:
        return None
    settings = MaskedPredictor.Config(
        width=config["pred_hidden_size"],
        depth=config["pred_num_hidden_layers"],
        heads=config["pred_num_attention_heads"],
        mlp_ratio=config["pred_mlp_ratio"],
        positions="rotary_tiled",
    )
    return MaskedPredictor(settings, config["hidden_size"], mask_kinds=config["pred_num_mask_tokens"])


def describe(encoder: VideoViT, predictor: MaskedPredictor | None) -> dict[str, Any]:
    """The settings of transformers' `VJEPA2Config` for these modules. Raises UserError if it has no such modules."""
    if encoder.cls_token is not None or encoder.attention != "bidirectional" or encoder.positions != "rotary_tiled":
        raise UserError(
            "VJEPA2Model has no CLS token, attends in both directions and has positions rotary_tiled; this encoder "
            f"has {encoder.positions}, {encoder.attention} attention. Train with encoder.positions=rotary_tiled"
        )
    if encoder.levels or encoder.images or encoder.position_grid is not None:
        raise UserError(
            "VJEPA2Model gives out one level, has no embedding of images and does not rescale positions, as this "
            "encoder of V-JEPA 2.1 does; export it to meta or openjepa"
        )
    if predictor is not None and predictor.config.positions != "rotary_tiled":
        raise UserError(
            f"VJEPA2Model's predictor has positions rotary_tiled, this one has {predictor.config.positions}"
        )
    settings: dict[str, Any] = {
        "patch_size": encoder.patch,
        "crop_size": encoder.image_size,
        "frames_per_clip": encoder.frames,
        "tubelet_size": encoder.tubelet,
        "in_chans": encoder.patch_embed.proj.in_channels,
        "hidden_size": encoder.width,
        "num_attention_heads": encoder.heads,
        "num_hidden_layers": len(encoder.blocks),
        "mlp_ratio": encoder.config.mlp_ratio,
        "layer_norm_eps": NORM_EPS,
        "pred_num_hidden_layers": 0,
    }
    if predictor is not None:
        width = predictor.width
        settings |= {
            "pred_hidden_size": width,
            "pred_num_attention_heads": predictor.config.heads,
            "pred_num_hidden_layers": len(predictor.predictor_blocks),
            "pred_num_mask_tokens": len(predictor.mask_tokens),
            "pred_mlp_ratio": predictor.config.mlp_ratio,
        }
    return settings


def their_tensors(
    encoder: VideoViT, predictor: MaskedPredictor | None, expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors under the names of `VJEPA2Model`; where there is no predictor, those of `expected` stand for it.

    Raises:
        UserError: they are not what `expected`, the tensors of such a model, holds.
    """
    tensors = _theirs(encoder.state_dict(), ENCODER)
    if predictor is None:
        tensors |= {name: tensor for name, tensor in expected.items() if name.startswith("predictor.")}
    else:
        ours = predictor.state_dict()
        tensors |= _theirs(ours | {"mask_tokens": ours["mask_tokens"][:, None, None]}, PREDICTOR)
    check_tensors(expected, tensors, "this encoder")
    return tensors


def their_classes(*names: str) -> tuple[Any, ...]:
    """Classes of transformers by name. Raises UserError if it is not installed, or so old that it lacks one."""
    try:
        import transformers

        return tuple(getattr(transformers, name) for name in names)
    except (ImportError, AttributeError):
        raise UserError("this needs transformers: pip install 'openjepa[huggingface]'") from None


def _theirs(tensors: Mapping[str, Tensor], names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = dict[str, Tensor]()
    for name, tensor in tensors.items():
        ours, theirs = next(pair for pair in names if name.startswith(pair[0]))
        name = theirs + name.removeprefix(ours)
        if ".attn.qkv." in name:
            for part, piece in zip(PARTS, tensor.chunk(3), strict=True):
                renamed[name.replace(".attn.qkv.", f".attention.{part}.")] = piece
        else:
            renamed[name.replace(".attn.", ".attention.")] = tensor
    return renamed


def _ours(tensors: Mapping[str, Tensor], names: tuple[tuple[str, str], ...], where: str) -> dict[str, Tensor]:
    renamed = dict[str, Tensor]()
    parts = dict[str, dict[str, Tensor]]()
    for name, tensor in tensors.items():
        pair = next((pair for pair in names if name.startswith(pair[1])), None)
        if pair is None:
            raise UserError(f"{where} has a tensor that V-JEPA 2 does not have: {name}")
        name = pair[0] + name.removeprefix(pair[1])
        if match := re.search(r"\.attention\.(query|key|value)\.", name):
            parts.setdefault(name.replace(match[0], ".attn.qkv."), {})[match[1]] = tensor
        else:
            renamed[name.replace(".attention.", ".attn.")] = tensor
    if "mask_tokens" in renamed:
        renamed["mask_tokens"] = renamed["mask_tokens"][:, 0, 0]
    for name, pieces in parts.items():
        if lost := [part for part in PARTS if part not in pieces]:
            raise UserError(f"{where} belongs to another model: missing {' and '.join(lost)} of {name}")
        renamed[name] = torch.cat([pieces[part] for part in PARTS])
    return renamed
