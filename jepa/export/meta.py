"""Meta's checkpoints of V-JEPA 1 and 2: their tensors to our modules, and back, bit for bit.

A `.pt` file holds a dictionary: encoder, predictor, target_encoder (and the optimiser). Ours and theirs name the
tensors alike, but for a prefix and the mask tokens, which they keep one by one. V-JEPA 1 also stores its fixed
positions: they are compared with those that we compute, and left out.

    encoder      module.backbone.blocks.0.attn.qkv.weight      predictor    module.backbone.mask_tokens.0
    ours                         blocks.0.attn.qkv.weight                                   mask_tokens [kinds, width]

Files are read by PyTorch's loader for weights only: a pickle with anything but tensors and plain values is refused.
"""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from jepa.config import UserError
from jepa.encoders.video_vit import SIZES, VideoViT
from jepa.export.checkpoint import check_tensors
from jepa.predictors.masked import MaskedPredictor
from jepa.transformer import grid_positions, sincos_table

Which = Literal["target_encoder", "encoder"]
PREFIXES = ("module.", "backbone.")
POSITIONS, MASK_TOKENS = "pos_embed", "mask_tokens"
POSITION_TOLERANCE = 1e-5


@dataclass(frozen=True)
class MetaState:
    """Tensors of a checkpoint under our names; `positions` are V-JEPA 1's fixed ones, [1, tokens, width]."""

    encoder: dict[str, Tensor]
    predictor: dict[str, Tensor] | None
    positions: Tensor | None


def load_state(path: str | Path, encoder: Which = "target_encoder") -> MetaState:
    """Read a `.pt` file of V-JEPA 1 or 2.

    Args:
        encoder: which of the two encoders in it; Meta's own probes read the target encoder.

    Raises:
        UserError: there is no such file, it is damaged, holds code, or is no checkpoint of these.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: refused, it is damaged or holds more than tensors ({_first_line(error)})") from None
    except (RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise UserError(f"{path}: damaged, copy it again ({_first_line(error)})") from None
    return read_state(found, encoder, str(path))


def read_state(found: Any, encoder: Which = "target_encoder", where: str = "the checkpoint") -> MetaState:
    """The same of a dictionary that was read already."""
    if not isinstance(found, dict) or not isinstance(found.get(encoder), dict):
        keys = ", ".join(sorted(map(str, found))) if isinstance(found, dict) else type(found).__name__
        raise UserError(f"{where}: expected a V-JEPA checkpoint with the key {encoder!r}, found {keys or 'nothing'}")
    tensors = _without_prefix(found[encoder])
    if any(name.startswith("norms_block.") for name in tensors):
        raise UserError(f"{where}: weights of V-JEPA 2.1 cannot be read yet, only those of 1 and 2")
    predictor = _without_prefix(found["predictor"]) if isinstance(found.get("predictor"), dict) else None
    positions = tensors.pop(POSITIONS, None)
    if predictor is not None:
        predictor.pop("predictor_" + POSITIONS, None)
        tokens = [predictor.pop(f"{MASK_TOKENS}.{i}") for i in range(_count(predictor, MASK_TOKENS))]
        predictor[MASK_TOKENS] = torch.stack([token.flatten() for token in tokens]) if tokens else torch.empty(0, 0)
    return MetaState(tensors, predictor, positions)


def build(
    state: MetaState,
    image_size: int,
    frames: int,
    *,
    heads: int | None = None,
    predictor_heads: int = 12,
    where: str = "the checkpoint",
) -> tuple[VideoViT, MaskedPredictor | None]:
    """The encoder and the predictor of a checkpoint; sizes are read off the tensors.

    Args:
        image_size, frames: of the clips it was trained on; the file does not say.
        heads: None: those of the published model of that width.
        predictor_heads: 12 in V-JEPA 2; V-JEPA 1 has as many as its encoder.

    Raises:
        UserError: a tensor is missing, surplus or of another shape; or the width is none of the published ones.
    """
    patches = state.encoder.get("patch_embed.proj.weight")
    hidden = state.encoder.get("blocks.0.mlp.fc1.weight")
    if patches is None or patches.ndim != 5 or hidden is None:
        raise UserError(f"{where}: expected patch_embed.proj.weight of 5 axes and blocks.0.mlp.fc1.weight in it")
    width, channels, tubelet, patch, _ = patches.shape
    heads = heads or {size.width: size.heads for size in SIZES.values()}.get(width)
    if heads is None:
        raise UserError(f"{where}: the file does not say how many heads a width of {width} has; give heads")
    positions = "rotary_tiled" if state.positions is None else "sincos"
    with torch.device("meta"):
        encoder = VideoViT(
            image_size,
            patch,
            tubelet,
            width,
            _count(state.encoder, "blocks"),
            heads,
            frames,
            len(hidden) / width,
            channels=channels,
            positions=positions,
        )
    _fill(encoder, state.encoder, where)
    if state.positions is not None:
        _check_positions(encoder, state.positions, where)
    if state.predictor is None:
        return encoder, None
    if positions == "sincos":
        raise UserError(f"{where}: the predictor of V-JEPA 1 cannot be read yet; its encoder can: drop `predictor`")
    return encoder, _predictor(state.predictor, width, predictor_heads, where)


def to_state(encoder: VideoViT, predictor: MaskedPredictor | None = None) -> dict[str, dict[str, Tensor]]:
    """What Meta's code reads: a dictionary for `torch.save`. `encoder` and `target_encoder` are the same tensors.

    Raises:
        UserError: Meta's V-JEPA 1 and 2 have no such encoder.
    """
    if encoder.cls_token is not None or encoder.attention != "bidirectional" or encoder.positions == "rotary":
        raise UserError(
            "Meta's V-JEPA 1 and 2 have no CLS token, attend in both directions and have positions sincos or "
            f"rotary_tiled; this encoder has {encoder.positions}, {encoder.attention} attention"
        )
    tensors = dict(encoder.state_dict())
    if encoder.positions == "sincos":
        tensors[POSITIONS] = _positions(encoder)
    named = _with_prefix(tensors)
    state = {"encoder": named, "target_encoder": named}
    if predictor is not None:
        found = dict(predictor.state_dict())
        tokens = found.pop(MASK_TOKENS)
        found |= {f"{MASK_TOKENS}.{i}": token[None, None] for i, token in enumerate(tokens)}
        state["predictor"] = _with_prefix(found)
    return state


def _predictor(tensors: dict[str, Tensor], encoder_width: int, heads: int, where: str) -> MaskedPredictor:
    embed, hidden = tensors.get("predictor_embed.weight"), tensors.get("predictor_blocks.0.mlp.fc1.weight")
    if embed is None or hidden is None:
        raise UserError(f"{where}: expected predictor_embed.weight and predictor_blocks.0.mlp.fc1.weight in it")
    width = len(embed)
    with torch.device("meta"):
        predictor = MaskedPredictor(
            encoder_width,
            width,
            _count(tensors, "predictor_blocks"),
            heads,
            len(hidden) / width,
            len(tensors[MASK_TOKENS]),
            "rotary_tiled",
        )
    _fill(predictor, tensors, where)
    return predictor


def _fill(module: VideoViT | MaskedPredictor, tensors: Mapping[str, Tensor], where: str) -> None:
    check_tensors(module.state_dict(), tensors, where)
    module.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
    module.eval()


def _positions(encoder: VideoViT) -> Tensor:
    side = encoder.image_size // encoder.patch
    grid = encoder.frames // encoder.tubelet, side, side
    index = torch.arange(grid[0] * grid[1] * grid[2])[None]
    return sincos_table(grid_positions(index, grid), encoder.width)


def _check_positions(encoder: VideoViT, found: Tensor, where: str) -> None:
    expected = _positions(encoder)
    if expected.shape != found.shape:
        raise UserError(
            f"{where}: it has positions for {found.shape[1]} tokens; clips of {encoder.frames} frames at "
            f"{encoder.image_size} px have {expected.shape[1]}. Give the frames and size it was trained on"
        )
    if (difference := (expected - found).abs().max().item()) > POSITION_TOLERANCE:
        raise UserError(f"{where}: its positions are not V-JEPA 1's sines and cosines (up to {difference:.2g} off)")


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        found[name] = tensor
    return found


def _with_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"".join(PREFIXES) + name: tensor.detach().clone() for name, tensor in tensors.items()}


def _count(tensors: Mapping[str, Tensor], stem: str) -> int:
    """How many of stem.0, stem.1, … there are."""
    return len({name.split(".")[1] for name in tensors if name.startswith(stem + ".")})


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
